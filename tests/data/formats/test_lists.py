"""Lists of images: forms of paths, missing files, and lines of the wrong form."""

import os

import numpy as np
import PIL.Image
import pytest

from vit_jax.data.formats import listing
from vit_jax.data.formats.lists import list_splits, read_list
from vit_jax.data.open import open_source
from vit_jax.types import UserError


@pytest.fixture
def folder(tmp_path):
    """Two folders of 20 images each."""
    for label in ("ant", "bee"):
        (tmp_path / label).mkdir()
        for i in range(20):
            PIL.Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(tmp_path / label / f"{i}.png")
    return tmp_path


def write(folder, lines, name="list.csv"):
    (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return folder / name


def refuse(place, split="train"):
    with pytest.raises(UserError) as caught:
        open_source(str(place), split)
    return str(caught.value)


def test_missing_files_are_counted_and_named_before_anything_else(folder):
    lines = [f"{label}/{i}.png,{label}" for label in ("ant", "bee", "cow") for i in range(20)]
    message = refuse(write(folder, [*lines, "lone.png,ant"]))
    first, *shown = message.splitlines()
    assert "21 of 61 files are missing" in first
    assert f"relative paths start from the list's folder, {folder}: correct them, or move the list" in first
    assert len(shown) == 5
    assert set(shown) <= {f"  cow/{i}.png" for i in range(20)} | {"  lone.png"}


def test_files_that_lie_where_the_command_runs_are_told_apart(folder, tmp_path, monkeypatch):
    (tmp_path / "lists").mkdir()
    monkeypatch.chdir(folder)
    message = refuse(write(tmp_path / "lists", ["ant/1.png,ant", "bee/1.png,bee"]))
    assert f"move the list to {folder}, where they are" in message


def test_only_the_files_of_the_split_are_looked_for(folder):
    place = write(folder, ["ant/1.png,ant,train", "bee/1.png,bee,train", "bee/x.png,bee,test"])
    assert len(open_source(str(place), "train")) == 2
    assert "1 of 1 files are missing" in refuse(place, "test")
    assert list_splits(str(place)) == ["test", "train"]


def test_missing_files_are_found_by_listing_each_folder_once(folder, monkeypatch):
    listed, list_folder = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: (listed.append(path), list_folder(path))[1])
    monkeypatch.setattr(os.path, "exists", lambda path: pytest.fail(f"{path} was asked for alone"))
    paths = [f"{label}/{i}.png" for label in ("ant", "bee") for i in range(20)]
    assert listing.find_missing(str(folder), paths) == []
    assert sorted(listed) == [f"{folder}/ant/", f"{folder}/bee/"]


def test_a_name_that_the_file_system_finds_and_lists_otherwise_is_there(folder, monkeypatch):
    monkeypatch.setattr(os, "listdir", lambda path: [])  # as a macOS disk that composes letters in its own way
    assert listing.find_missing(str(folder), [f"ant/{i}.png" for i in range(21)]) == ["ant/20.png"]


@pytest.mark.parametrize(
    "url", ["http://a/b.jpg", "https://a/b.jpg", "s3://a/b.jpg", "file:///a/b.jpg", "FTP://a/b.jpg"]
)
def test_urls_are_refused_by_their_lines(folder, url):
    message = refuse(write(folder, ["ant/1.png,ant", f"{url},bee"]))
    assert f"line 2: {url}: expected a path on this machine or gs://, found {url[: url.index('//') + 2]}" in message


def test_an_absolute_gs_path_is_read_where_something_can_read_it(folder, monkeypatch):
    class Bucket:
        def __init__(self, path):
            assert path == "gs://bucket/a.png", path

        exists = lambda self: True  # noqa: E731

        def stat(self):
            return type("Stat", (), {"length": 7})()

        def open(self, mode):
            return open(folder / "ant" / "7.png", mode)

    place = write(folder, ["gs://bucket/a.png,ant", "bee/1.png,bee"])
    real = listing.epath.Path
    monkeypatch.setattr("etils.epath.Path", lambda path: Bucket(path) if str(path).startswith("gs://") else real(path))
    source = open_source(str(place), "train")
    found = {name: data for data, _, name in source.read_many(range(2))}
    assert found["gs://bucket/a.png"] == (folder / "ant" / "7.png").read_bytes()


def test_a_bucket_that_cannot_be_reached_is_one_error(folder, monkeypatch):
    def unreachable(self):
        raise ImportError("install gcsfs")

    monkeypatch.setattr("etils.epath.gpath.PosixGPath.exists", unreachable)
    monkeypatch.setattr("etils.epath.gpath.PosixGPath.iterdir", unreachable)
    for number in (1, 20):
        lines = [f"gs://bucket/{i}.png,{i % 2}" for i in range(number)]
        assert "cannot be reached (ImportError: install gcsfs); copy it to a disk" in refuse(write(folder, lines))


def test_lines_that_no_path_can_have_are_named_and_long_ones_are_cut(folder):
    long = "x" * 200_000
    place = write(folder, ["ant/1.png,ant", "a\0b.png,ant", f'"{long}",ant', f'"{long}'])
    message = refuse(place)
    assert "line 2: a path cannot hold NUL: 'a\\x00b.png,ant'" in message
    assert "line 3: '\"xxx" in message
    assert len(message) < 2000


def test_quoted_fields_and_plain_ones_mean_the_same(folder):
    quoted = read_list(write(folder, ['"ant/1.png","a, ""b"""', "bee/1.png ,c", '"bee/2.png","c"'], "q.csv"))
    assert quoted.paths == ["ant/1.png", "bee/1.png", "bee/2.png"]
    assert quoted.labels == ['a, "b"', "c", "c"]
    assert quoted.splits == ["train"] * 3


def test_a_list_that_is_no_file_or_no_text_is_one_error(folder):
    os.mkfifo(folder / "pipe.csv")
    (folder / "zeros.csv").symlink_to("/dev/zero")
    (folder / "folder.csv").mkdir()
    (folder / "latin.csv").write_bytes("caf\xe9.jpg,x\n".encode("latin-1"))
    for name, reason in (
        ("pipe.csv", "is a named pipe; expected a regular file"),
        ("zeros.csv", "is a device; expected a regular file"),
        ("folder.csv", "is a folder; expected a regular file"),
        ("latin.csv", "is not UTF-8 text"),
        ("none.csv", "does not exist"),
        ("nul\0.csv", "cannot be read"),
    ):
        assert reason in refuse(folder / name)


def test_names_that_are_no_utf_8_are_not_in_a_list_and_are_shown_escaped(folder):
    message = refuse(write(folder, ["ant/\x1b[2J.png,ant", "ant/1.png,ant"]))
    assert message.endswith("\n  ant/\\x1b[2J.png")
