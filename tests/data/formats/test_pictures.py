"""Images named on a command line: patterns, standard input and tar files; folders are in tests/test_predict.py."""

import io
import tarfile

import numpy as np
import PIL.Image
import pytest

from vit_jax.data.formats.pictures import Pictures, TarImage, find_images, read_picture
from vit_jax.data.image.decode import decode
from vit_jax.types import UserError


@pytest.fixture
def photos(tmp_path):
    """Two images in a folder and one below, and photos.tar, which has them, a hidden one and a note."""
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "sub/c.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(rng.integers(0, 256, (6, 5, 3), np.uint8)).save(tmp_path / "in" / name)
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for name in ("a.png", "sub/c.png"):
            tar.add(tmp_path / "in" / name, name)
        for name in ("._a.png", "notes.txt"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    return tmp_path


def test_patterns_match_files_in_order(photos):
    assert find_images([f"{photos}/in/*.png"]) == [f"{photos}/in/a.png", f"{photos}/in/b.png"]
    assert find_images([f"{photos}/in/**/*.png"])[-1] == f"{photos}/in/sub/c.png"
    with pytest.raises(UserError, match=r"in/\*.jpg: no file matches"):
        find_images([f"{photos}/in/*.jpg"])
    (photos / "odd[1].png").touch()
    assert find_images([f"{photos}/odd[1].png"]) == [f"{photos}/odd[1].png"]  # a file of that name is no pattern


def test_standard_input_names_one_a_line(photos, monkeypatch):
    lines = [f"{photos}/in/b.png\n", "\n", f"{photos}/in/sub\n", "-\n", "with space.jpg\r\n"]
    expected = [f"{photos}/in/b.png", f"{photos}/in/sub/c.png", "with space.jpg"]
    assert find_images(["-"], lines) == expected
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(lines)))
    assert find_images(["x.jpg", "-"]) == ["x.jpg", *expected]


def test_a_tar_file_is_the_images_in_it(photos):
    found = find_images([f"{photos}/photos.tar"])
    assert found == [f"{photos}/photos.tar:a.png", f"{photos}/photos.tar:sub/c.png"]
    assert isinstance(found[0], TarImage)
    for name, file in zip(("a.png", "sub/c.png"), found, strict=True):
        assert read_picture(file) == (photos / "in" / name).read_bytes() == read_picture(str(photos / "in" / name))
    (photos / "cut.tar").write_bytes((photos / "photos.tar").read_bytes()[:700])
    with pytest.raises(UserError, match=r"cut.tar: truncated"):
        find_images([f"{photos}/cut.tar"])
    with tarfile.open(photos / "empty.tar", "w"):
        pass
    with pytest.raises(UserError, match=r"empty.tar: none of its files matches"):
        find_images([f"{photos}/empty.tar"])


def test_pictures_are_a_source_without_labels(photos):
    files = [*find_images([f"{photos}/photos.tar", f"{photos}/in/b.png"]), "nowhere.png"]
    source = Pictures(files)
    assert (len(source), source.ids([0, 2])) == (4, [files[0], files[2]])
    data, label, name = source.read(1)
    assert (label, name) == (0, files[1])
    np.testing.assert_array_equal(decode(data), np.asarray(PIL.Image.open(photos / "in/sub/c.png")))
    assert source.read(3) == (b"", 0, "nowhere.png")
    assert source.fingerprint() != Pictures(files[::-1]).fingerprint()
