"""A folder of images as a data set: files, reading order, and messages about a wrong layout."""

import json
import os
import pickle

import numpy as np
import PIL.Image
import pytest

from vit_jax.data.open import open_source
from vit_jax.data.prepare.pack import pack
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


def test_every_format_and_all_folders_below_a_class_are_read_and_the_rest_is_counted(folder):
    formats = ("webp", "bmp", "tif", "tiff", "gif", "GIF")
    for i, suffix in enumerate(formats):
        write(folder / "train" / "cat" / "more" / ("a", "b")[i % 2] / f"{i}.{suffix}")
    write(folder / "train" / "cat" / ".cache" / "1.jpg")
    write(folder / "train" / "cat" / "album.jpg" / "1.png")
    for name in ("1.heic", "2.HEIC", "Thumbs.db", "README"):
        (folder / "train" / "dog" / name).write_bytes(b"")
    source = open_source(str(folder), "train")
    assert len(source) == 40 + len(formats) + 1
    below = {name for name in names(source) if name.count("/") > 2}
    assert below == {f"train/cat/more/{'ab'[i % 2]}/{i}.{suffix}" for i, suffix in enumerate(formats)} | {
        "train/cat/album.jpg/1.png"
    }
    assert all(source.read(i)[1] == 0 for i, name in enumerate(names(source)) if name in below)
    assert source.spec.notes == (
        f"{folder}: 5 files of train are no images by their names: 2 .heic, 1 .txt, 1 .db, 1 without suffix",
    )


def test_links_are_followed_once_and_no_loop_for_ever(folder, tmp_path):
    cat = folder / "train" / "cat"
    (cat / "up").symlink_to(folder / "train" / "cat")
    (cat / "self").symlink_to(cat / "self")
    write(tmp_path / "elsewhere" / "1.jpg")
    for name in ("b", "a"):
        (cat / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(cat)
    source = open_source(str(folder), "train")
    assert len(source) == 41
    assert "train/cat/a/1.jpg" in names(source)


def test_names_that_are_no_utf_8_are_read_and_shown_escaped(folder, caplog):
    place = os.fsencode(folder / "train")
    os.mkdir(place + b"/\xe9l\xe8ve\x1b[2J")
    with open(place + b"/\xe9l\xe8ve\x1b[2J/\xfc.jpg", "wb") as file:
        file.write((folder / "train" / "cat" / "1.jpg").read_bytes())
    os.symlink(b"nowhere", place + b"/\xe9l\xe8ve\x1b[2J/\xff.jpg")
    source = open_source(str(folder), "train")
    assert source.spec.class_names == ("cat", "dog", "\\xe9l\\xe8ve\\x1b[2J")
    json.dumps(source.spec.to_json(), ensure_ascii=False).encode()
    shown = {name: data for data, label, name in map(source.read, range(len(source))) if label == 2}
    assert {name: bool(data) for name, data in shown.items()} == {
        "train/\\xe9l\\xe8ve\\x1b[2J/\\xfc.jpg": True,
        "train/\\xe9l\\xe8ve\\x1b[2J/\\xff.jpg": False,
    }
    assert caplog.text.isascii()
    packed = pack(str(folder), str(folder.parent / "packed"))
    assert [line.partition(": ")[0] for line in packed.corrupt] == ["train/\\xe9l\\xe8ve\\x1b[2J/\\xff.jpg"]
    assert open_source(packed.folder, "train").spec.class_names == source.spec.class_names


def test_what_is_no_file_reads_as_no_bytes_at_once(folder, tmp_path):
    cat = folder / "test" / "cat"
    for name in ("t0.jpg", "t1.jpg", "t2.jpg"):
        (cat / name).unlink()
    os.mkfifo(cat / "t0.jpg")
    (cat / "t1.jpg").symlink_to("/dev/zero")
    with open(cat / "t2.jpg", "wb") as file:
        file.truncate(2**40)
    source = open_source(str(folder), "test")
    assert {name for data, _, name in source.read_many(range(5)) if not data} == {
        f"test/cat/t{i}.jpg" for i in range(3)
    }


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


def test_a_folder_of_class_folders_is_one_split_by_itself(folder):
    (folder / "train").rename(folder.parent / "flat")
    write(folder.parent / "flat" / "loose.png")
    source = open_source(str(folder.parent / "flat"), "train")
    assert (len(source), source.spec.class_names, source.spec.class_counts) == (40, ("cat", "dog"), (20, 20))
    assert sorted(names(source))[0] == "cat/0.jpg"
    (beside, others) = source.spec.notes
    assert "1 images beside the class folders are in no class, and not read" in beside
    assert "1 files of train are no images by their names: 1 .txt" in others
    assert "no split 'test' in 'test'; its splits are train" in refuse(folder.parent / "flat", "test")


def test_what_is_no_folder_of_classes_says_what_to_do(tmp_path):
    for label in ("cat", "dog"):
        write(tmp_path / "images" / label / "1.jpg")
    assert refuse(tmp_path).endswith(
        f"one folder, images, that holds 2 folders of images (cat, dog); point at {tmp_path}/images if they are the classes"
    )
    write(tmp_path / "test" / "cat" / "1.jpg")
    assert "found no train/ but test; name the folder of the training images train" in refuse(tmp_path)
    write(tmp_path / "one" / "cat" / "1.jpg")
    assert "one folder of images (cat); expected two classes or more" in refuse(tmp_path / "one")
    assert (
        f"move each into {tmp_path}/images/cat/<its class>/, or point at {tmp_path}/images if cat, dog are"
        in refuse(tmp_path / "images" / "cat")
    )
    (tmp_path / "mixed" / "train").mkdir(parents=True)
    (tmp_path / "images").rename(tmp_path / "mixed" / "train" / "images")
    assert "train/ has one class folder, images, that holds 2 folders of images (cat, dog); move these into" in refuse(
        tmp_path / "mixed"
    )


def test_class_folders_beside_train_are_noted_and_not_read(folder):
    write(folder / "eel" / "1.jpg")
    (note, _) = open_source(str(folder), "train").spec.notes
    assert note == f"{folder}: eel beside train/ hold images without class folders, and are not read"


def test_loose_images_and_empty_folders_are_recognised(tmp_path):
    assert "nothing that looks like images" in refuse(tmp_path)
    write(tmp_path / "a.jpg")
    assert "1 images without class folders" in refuse(tmp_path)
    (tmp_path / "train").mkdir()
    assert "no class folder in" in refuse(tmp_path)


def test_class_folders_without_matching_files_are_all_listed(folder):
    (folder / "train" / "eel").mkdir()
    (folder / "train" / "fox").mkdir()
    (folder / "train" / "fox" / "1.heic").write_bytes(b"")
    message = refuse(folder)
    assert "2 of 4 class folders in train/ have 0 files matching *.jpg, *.jpeg, *.png, *.webp, *.bmp, *.tif" in message
    assert "eel (empty); fox (1 .heic)" in message


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
