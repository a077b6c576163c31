"""A folder of images as a data set: what is read, in which order, and what a wrong layout says."""

import pickle

import numpy as np
import PIL.Image
import pytest

from vit_jax.data.sources import open_source
from vit_jax.types import UserError


def write(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (4, 4), (value, 0, 0)).save(path)


@pytest.fixture
def folder(tmp_path):
    """20 cats and 20 dogs for training, 3 and 2 for testing; clutter that is not images."""
    root = tmp_path / "pets"
    for index in range(20):
        write(root / "train" / "cat" / f"{index}.jpg")
        write(root / "train" / "dog" / f"{index}.{('png', 'JPG', 'jpeg')[index % 3]}")
    for index in range(3):
        write(root / "test" / "cat" / f"t{index}.jpg")
    for index in range(2):
        write(root / "test" / "dog" / f"t{index}.jpg")
    (root / "train" / "cat" / "notes.txt").write_text("not an image")
    (root / "train" / "cat" / ".hidden.jpg").write_bytes(b"left by an editor")
    (root / "train" / ".ipynb_checkpoints").mkdir()
    (root / "README.txt").write_text("not a split")
    return root


def names(source):
    return [source.read(index)[2] for index in range(len(source))]


def test_a_folder_is_read_with_sorted_classes(folder):
    source = open_source(str(folder), "train")
    assert len(source) == source.spec.num_examples == 40
    assert source.spec.class_names == ("cat", "dog")
    assert source.spec.num_classes == 2
    assert source.spec.image_shape == (None, None, 3)
    for index in range(40):
        data, label, name = source.read(index)
        assert label == {"cat": 0, "dog": 1}[name.split("/")[1]]
        assert data == (folder / name).read_bytes()
    assert len(set(names(source))) == 40


def test_order_is_that_of_the_paths_md5(folder):
    # md5sum of "test/cat/t0.jpg" and the others, sorted, worked out in the shell.
    order = ["dog/t1", "cat/t1", "dog/t0", "cat/t0", "cat/t2"]
    assert names(open_source(str(folder), "test")) == [f"test/{name}.jpg" for name in order]


def test_a_part_of_a_split_is_a_random_subset_not_the_first_classes(folder):
    source = open_source(str(folder), "train[:50%]")
    share = np.mean([source.read(index)[1] for index in range(len(source))])
    assert len(source) == 20
    assert 0.2 < share < 0.8
    rest = open_source(str(folder), "train[50%:]")
    assert set(names(source)) | set(names(rest)) == set(names(open_source(str(folder), "train")))
    assert not set(names(source)) & set(names(rest))


def test_splits_can_be_added_and_all_is_all_of_them(folder):
    both = names(open_source(str(folder), "train[-1:]+test"))
    assert both == [names(open_source(str(folder), "train"))[-1], *names(open_source(str(folder), "test"))]
    assert len(open_source(str(folder), "all")) == 45


def test_a_folder_source_survives_pickling(folder):
    source = open_source(str(folder), "test")
    copy = pickle.loads(pickle.dumps(source))
    assert copy.spec == source.spec
    assert copy.read(3) == source.read(3)


def test_a_file_that_disappears_reads_as_no_bytes_under_its_name(folder):
    source = open_source(str(folder), "test")
    (folder / "test" / "cat" / "t1.jpg").unlink()
    index = names(source).index("test/cat/t1.jpg")
    assert source.read(index) == (b"", 0, "test/cat/t1.jpg")


def test_relative_and_bare_folder_names_are_folders(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert len(open_source("./pets", "test")) == 5
    assert len(open_source("pets", "test")) == 5
    monkeypatch.chdir(folder.parent.parent)
    assert len(open_source(f"{folder.parent.name}/pets", "test")) == 5


def refuse(dataset, split="train"):
    with pytest.raises(UserError) as error:
        open_source(str(dataset), split)
    return str(error.value)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    assert "found nothing there" in refuse(tmp_path / "nowhere")
    assert "found nothing there" in refuse("some/relative/folder")


def test_pointing_at_train_says_to_point_at_its_parent(folder):
    assert f"point at the folder above: {folder}" in refuse(folder / "train")


def test_pointing_at_a_class_says_what_to_point_at(folder):
    message = refuse(folder / "train" / "cat")
    assert "20 images: this is one class" in message
    assert message.endswith(f"point at {folder}")


def test_pointing_above_the_folder_says_so(folder):
    assert refuse(folder.parent).endswith(f"point at {folder}")


def test_class_folders_without_train_are_recognised(folder):
    (folder / "train").rename(folder.parent / "flat")
    message = refuse(folder.parent / "flat")
    assert "2 folders of images (cat, dog); move them into" in message


def test_loose_images_and_empty_folders_are_recognised(tmp_path):
    assert "nothing that looks like images" in refuse(tmp_path)
    write(tmp_path / "a.jpg")
    assert "1 images without class folders" in refuse(tmp_path)
    (tmp_path / "train").mkdir()
    assert "no class folder in" in refuse(tmp_path)


def test_class_folders_without_matching_files_are_all_listed(folder):
    (folder / "train" / "eel").mkdir()
    (folder / "train" / "fox").mkdir()
    (folder / "train" / "fox" / "1.webp").write_bytes(b"")
    message = refuse(folder)
    assert "2 of 4 class folders in train/ have 0 files matching *.jpg, *.jpeg, *.png" in message
    assert "eel (empty); fox (1.webp)" in message


def test_a_class_that_train_does_not_have_is_refused(folder):
    write(folder / "test" / "eel" / "1.jpg")
    assert "test/ has 1 classes that train/ does not have (eel)" in refuse(folder, "test")
    assert len(open_source(str(folder), "train")) == 40  # a split that is not asked for is not looked at


def test_an_unknown_split_lists_the_splits(folder):
    assert "no split 'val' in 'val[:3]'; its splits are test, train" in refuse(folder, "val[:3]")


def test_bad_split_expressions_say_what_there_is(folder):
    assert "cannot read split 'train[' " in refuse(folder, "train[")
    assert "incompatible with 40 examples" in refuse(folder, "train[:41]")
    assert "takes no example of 'train'; the splits are train (40)" in refuse(folder, "train[:0]")
