"""Exclusion lists: the loader never reads an example on a list, reads every other one, and other data refuses the list."""

import json
import os
import pickle
import shutil

import numpy as np
import PIL.Image
import pytest

from vit_jax.data.build import TrainData
from vit_jax.data.dedup.exclusion import HEADER, ExcludedSource, exclude, write_exclusion
from vit_jax.data.image.recipes import make_transform
from vit_jax.data.open import open_source
from vit_jax.data.prepare.pack import pack
from vit_jax.data.source import Source, SubsetSource
from vit_jax.data.stream.loader import train_batches
from vit_jax.types import UserError

COUNT = 30


@pytest.fixture
def folder(tmp_path):
    """30 images in two classes whose pixels all hold the image's number."""
    root = tmp_path / "images"
    for i in range(COUNT):
        place = root / "train" / f"class{i % 2}"
        place.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(place / f"{i:02}.png")
    return root


@pytest.fixture(params=["folder", "packed"])
def dataset(request, folder, tmp_path):
    """The same images as files and as records."""
    if request.param == "packed":
        pack(str(folder), str(tmp_path / "packed"))
        return str(tmp_path / "packed")
    return str(folder)


def numbers(source):
    """Which image each example is."""
    from vit_jax.data.image.decode import decode

    return [int(decode(source.read(i)[0])[0, 0, 0]) for i in range(len(source))]


def data_of(dataset, **options):
    settings = {"split": "train", "resolution": (8, 8), "batch_size": 5, "recipe": "eval", **options}
    return TrainData(dataset=str(dataset), **settings)


def write(dataset, indices, tmp_path, split="train"):
    file = tmp_path / "exclude.txt"
    write_exclusion(file, open_source(dataset, split), indices, ["digits@test"], "")
    return file


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_no_excluded_image_is_trained_on_and_every_other_once_an_epoch(dataset, tmp_path, workers):
    order = numbers(open_source(dataset, "train"))
    file = write(dataset, [3, 0, 29, 17, 18], tmp_path)
    data = data_of(dataset, exclude=str(file), workers=workers)
    source = data.open()
    assert (len(source), source.spec.num_examples, source.spec.num_excluded) == (25, 25, 5)
    loader = data.batches(source, seed=1, start_step=0, process_index=0, process_count=1, corrupt=())
    seen = [int(image[0, 0, 0]) for _ in range(10) for image in next(loader).image]
    loader.close()
    kept = sorted(set(range(COUNT)) - {order[i] for i in (3, 0, 29, 17, 18)})
    assert sorted(seen[:25]) == kept
    assert sorted(seen[25:]) == kept
    assert seen[:25] != seen[25:]


def test_starting_late_gives_the_batches_of_the_run_that_was_never_stopped(dataset, tmp_path):
    data = data_of(dataset, exclude=str(write(dataset, [1, 2], tmp_path)))
    loaders = [
        data.batches(data.open(), seed=0, start_step=s, process_index=0, process_count=1, corrupt=()) for s in (0, 7)
    ]
    for _ in range(7):
        next(loaders[0])
    assert np.array_equal(next(loaders[0]).image, next(loaders[1]).image)
    for loader in loaders:
        loader.close()


def test_parts_of_the_split_take_the_list_of_the_whole(dataset, tmp_path):
    file = write(dataset, [2, 5, 10, 28], tmp_path)
    order = numbers(open_source(dataset, "train"))
    for split, kept in {
        "train[:10]": [i for i in range(10) if i not in (2, 5)],
        "train[5:]": [i for i in range(5, 30) if i not in (5, 10, 28)],
        "train[20:]+train[:5]": [i for i in (*range(20, 30), *range(5)) if i not in (28, 2)],
        "train[12:20]": list(range(12, 20)),
    }.items():
        assert numbers(exclude(open_source(dataset, split), str(file))) == [order[i] for i in kept], split


def test_a_list_of_part_of_a_split_names_the_stored_examples(dataset, tmp_path):
    file = write(dataset, [0, 3], tmp_path, "train[10:]+train[:5]")
    order = numbers(open_source(dataset, "train"))
    assert numbers(exclude(open_source(dataset, "train[10:]"), str(file))) == [
        order[i] for i in range(10, 30) if i not in (10, 13)
    ]
    with pytest.raises(UserError, match=r"5 examples of train were not searched \(only train\[10:\]\+train\[:5\] was"):
        exclude(open_source(dataset, "train"), str(file))


def test_ids_are_paths_of_files_and_indices_of_records(folder, tmp_path):
    first = write(str(folder), [4], tmp_path).read_text().splitlines()
    assert first[1:] == [open_source(str(folder), "train").read(4)[2]]
    pack(str(folder), str(tmp_path / "packed"))
    second = write(str(tmp_path / "packed"), [4, 11, 4], tmp_path).read_text().splitlines()
    assert second[1:] == ["train#11", "train#4"]
    assert json.loads(second[0].removeprefix(HEADER))["stored"]["train"]["examples"] == COUNT


def test_other_data_of_the_same_size_is_refused(dataset, folder, tmp_path):
    file = write(dataset, [4], tmp_path)
    source = open_source(dataset, "train")
    name = source.read(0)[2] if source.ids(()) is not None else ""
    if name:
        PIL.Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save(folder / name)
        other = str(folder)
    else:
        for place in (folder / "train").rglob("*.png"):
            PIL.Image.fromarray(np.full((8, 8, 3), 77, np.uint8)).save(place)
        pack(str(folder), str(tmp_path / "other"))
        other = str(tmp_path / "other")
    with pytest.raises(
        UserError, match=r"made for .* and not for .*: train has other images.*Make one: `vit_jax dedup"
    ):
        exclude(open_source(other, "train"), str(file))


def test_another_size_kind_or_split_is_refused(folder, tmp_path):
    file = write(str(folder), [4], tmp_path)
    pack(str(folder), str(tmp_path / "packed"))
    with pytest.raises(UserError, match="expected examples known by path, found by index"):
        exclude(open_source(str(tmp_path / "packed"), "train"), str(file))
    PIL.Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "train" / "class0" / "new.png")
    with pytest.raises(UserError, match="expected 30 examples in train, found 31"):
        data_of(folder, exclude=str(file)).open()
    (folder / "val" / "class0").mkdir(parents=True)
    PIL.Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "val" / "class0" / "a.png")
    with pytest.raises(UserError, match="expected splits train, found val"):
        exclude(open_source(str(folder), "val"), str(file))


def test_another_version_is_refused(tfds_dir, tmp_path):
    file = tmp_path / "exclude.txt"
    source = open_source("digits", "train", tfds_dir)
    write_exclusion(file, source, [0, 1436], [], tfds_dir)
    assert len(exclude(source, str(file), tfds_dir)) == 1435
    file.write_text(file.read_text().replace('"version": "1.0.0"', '"version": "9.0.0"'))
    with pytest.raises(UserError, match=r"expected version 9\.0\.0, found 1\.0\.0"):
        exclude(source, str(file), tfds_dir)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("", "is no exclusion list"),
        (HEADER + "[" * 100_000 + "\n", "is no exclusion list"),
        (
            HEADER + '{"dataset": "x", "version": "", "split": "train", "stored": [], "ids": "path", "excluded": 0}',
            "is no exc",
        ),
        (
            HEADER + '{"dataset": 1, "version": "", "split": "train", "stored": {}, "ids": "path", "excluded": 0}',
            "is no exc",
        ),
        (
            HEADER + '{"dataset": "x", "version": "", "split": "t", "stored": {"t": {}}, "ids": "path", "excluded": 0}',
            "is no exc",
        ),
        ("train#1\n", "is no exclusion list: expected a first line"),
        (HEADER + "{]\n", "is no exclusion list"),
        (HEADER + '{"dataset": "x"}\n', "is no exclusion list"),
    ],
)
def test_what_is_no_list_is_refused(folder, tmp_path, text, message):
    file = tmp_path / "exclude.txt"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=message):
        exclude(open_source(str(folder), "train"), str(file))


def test_a_list_that_is_no_file_is_refused_at_once(folder, tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "zeros.txt").symlink_to("/dev/zero")
    for name in ("pipe.txt", "zeros.txt"):
        with pytest.raises(UserError, match="expected a regular file"):
            exclude(open_source(str(folder), "train"), str(tmp_path / name))


def test_names_that_are_no_utf_8_are_listed_and_left_out(folder, tmp_path):
    place = os.fsencode(folder / "train" / "class0")
    for name in (b"caf\xe9.png", "line\u2028break.png".encode()):
        shutil.copy(folder / "train" / "class0" / "00.png", place + b"/" + name)
    whole = open_source(str(folder), "train")
    odd = [i for i, path in enumerate(whole.ids(range(len(whole)))) if not path.isascii()]
    file = write(str(folder), odd, tmp_path)
    without = exclude(whole, str(file))
    assert len(odd) == 2
    assert [without.read(i)[2] for i in range(len(without))] == [p for p in whole.ids(range(len(whole))) if p.isascii()]
    os.rename(place + b"/caf\xe9.png", place + b"/a\nb.png")
    with pytest.raises(UserError, match=r"a\\nb.png cannot stand in a list"):
        write(str(folder), range(32), tmp_path)


def test_a_list_that_was_cut_short_is_refused(folder, tmp_path):
    file = write(str(folder), range(9), tmp_path)
    file.write_text("\n".join(file.read_text().splitlines()[:6]))
    with pytest.raises(UserError, match=r'expected 9 ids, found 5; .*"excluded": 5'):
        exclude(open_source(str(folder), "train"), str(file))


def test_a_list_of_everything_is_refused(folder, tmp_path):
    file = write(str(folder), range(COUNT), tmp_path)
    with pytest.raises(UserError, match="nothing is left"):
        exclude(open_source(str(folder), "train"), str(file))


def test_vtab_tasks_have_no_lists(tfds_dir, folder, tmp_path):
    source = open_source("digits", "train[:100]", tfds_dir)
    source.stored = "train[:800]"  # what a task's source has
    with pytest.raises(UserError, match="give the data set's own name"):
        write_exclusion(tmp_path / "exclude.txt", source, [1], [], tfds_dir)


class Plain(Source):
    """A source of its own kind, with `spec` and `read` alone, whose images decode in its own way."""

    def __init__(self, source):
        self.spec, self._source = source.spec, source

    def read(self, index):
        return self._source.read(index)

    def decode(self, data):
        return np.full((8, 8, 3), 200, np.uint8)


def test_what_a_source_can_do_stays(folder, tmp_path):
    whole = open_source(str(folder), "train")
    without = ExcludedSource(whole, np.array([0, 1, 4]))
    assert without.read_many([0, 1, 2]) == [whole.read(i) for i in (2, 3, 5)]
    assert pickle.loads(pickle.dumps(without)).read(26) == whole.read(29)
    some = SubsetSource(Plain(whole), np.array([7, 7, 2]))
    assert some.read_many([0, 1, 2]) == [whole.read(i) for i in (7, 7, 2)]
    loader = train_batches(some, make_transform("eval", (8, 8)), batch_size=3, seed=0)
    assert (next(loader).image == 200).all()
    loader.close()
    pack(str(folder), str(tmp_path / "packed"))
    packed = open_source(str(tmp_path / "packed"), "train")
    assert [ExcludedSource(source, np.array([0])).checked for source in (whole, packed)] == [False, True]
