"""The door of the data room: which kind of data set a name means, and which callers get sets of labels."""

import shutil

import numpy as np
import PIL.Image
import pytest
from squares import Squares

from vit_jax.data import open as door
from vit_jax.data.open import open_source
from vit_jax.targets import ClassSet
from vit_jax.types import UserError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder that the command runs in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_folder(place, split="train"):
    (place / split / "ant").mkdir(parents=True)
    PIL.Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(place / split / "ant" / "a.png")


def kind_of(dataset, data_dir="", split="train"):
    return type(open_source(dataset, split, str(data_dir))).__name__


@pytest.fixture
def asked(monkeypatch):
    """Two formats from outside: squares with single labels, and with sets of them; what they were asked to open."""
    calls = []

    def squares(rest, split):
        calls.append((rest, split))
        return Squares()

    def sets(rest, split):
        source = Squares()
        source.spec = source.spec._replace(target=ClassSet(6))
        return source

    monkeypatch.setattr(door, "FORMATS", {"squares": squares, "sets": sets})
    return calls


def test_a_format_from_outside_gets_all_that_follows_its_prefix_and_the_split(asked):
    assert len(open_source("squares:gs://bucket/a:b", "train[:50%]")) == 6
    assert asked == [("gs://bucket/a:b", "train[:50%]")]
    with pytest.raises(UserError, match="'square:x' is neither a TFDS data set"):
        open_source("square:x", "train")


def test_sets_of_labels_are_opened_only_for_a_caller_that_understands_them(asked):
    with pytest.raises(UserError, match=r"^sets:x: its examples have sets of labels: .* score it with an evaluator"):
        open_source("sets:x", "train")
    assert open_source("sets:x", "train", multi_label=True).spec.target == ClassSet(6)
    assert len(open_source("squares:x", "train", multi_label=True)) == 6


def test_a_bare_name_of_tfds_is_its_data_even_beside_a_folder_of_that_name_unless_that_holds_images(here, tfds_dir):
    # As in ~/tensorflow_datasets, where a data set's own folder bears its name.
    shutil.copytree(f"{tfds_dir}/digits", here / "digits")
    assert kind_of("digits", tfds_dir) == kind_of("digits", here) == "TfdsSource"
    make_folder(here / "digits")
    assert kind_of("digits", tfds_dir) == "FolderSource"


def test_a_folder_that_is_named_like_a_vtab_task_is_a_folder(here):
    make_folder(here / "vtab" / "pets")
    assert kind_of("vtab/pets") == "FolderSource"
    with pytest.raises(UserError, match=r"no VTAB task 'pest'; did you mean 'pets'"):
        open_source("vtab/pest", "train")


@pytest.mark.parametrize("name", ["mine/flowers", "./flowers", "~/flowers", "/no/flowers"])
def test_a_name_with_a_slash_that_tfds_does_not_know_is_a_path(here, monkeypatch, name):
    monkeypatch.setenv("HOME", str(here / "home"))
    with pytest.raises(UserError, match=r"^image folder .*flowers"):
        open_source(name, "train")
    for place in (here, here / "mine", here / "home"):
        make_folder(place / "flowers")
    if name != "/no/flowers":
        assert kind_of(name) == "FolderSource"


def test_a_held_out_part_is_of_ones_own_images_and_data_of_tfds_says_which_splits_it_has(here, tfds_dir):
    make_folder(here / "mine")
    for i in range(1, 12):
        shutil.copy(here / "mine/train/ant/a.png", here / f"mine/train/ant/{i}.png")
    parts = [open_source(str(here / "mine"), split) for split in ("train_kept", "train_held_out")]
    assert [len(part) for part in parts] == [10, 2]  # the first and the eleventh
    with pytest.raises(UserError, match=r"train_held_out.*train \(1,437\)"):
        open_source("digits", "train_held_out", tfds_dir)
