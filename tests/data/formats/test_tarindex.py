"""The samples of a tar shard, found from its headers, and everything that is wrong with them."""

import gzip
import tarfile

import pytest
from tar_shards import encode, read_all, refuse, write_shards, write_tar

from vit_jax.data.image.decode import decode
from vit_jax.data.open import open_source


@pytest.fixture
def folder(tmp_path):
    return write_shards(tmp_path / "shards")


def test_the_files_of_a_sample_are_told_by_what_follows_the_first_dot(tmp_path):
    write_tar(
        tmp_path / "x.tar",
        [
            ("./a/one.JPG", encode(1, "JPEG")),
            ("b/one.jpeg", encode(2, "JPEG")),
            ("a/one.seg.png", b"a mask, not the image"),
            ("a/one.cls", b" 1\n"),
            ("two.json", b'{"label": 2, "caption": "a \xc3\xa4pfel"}'),
            ("b/one.json", b'{"label": 7}'),
            ("two.webp", encode(3, "WEBP")),
            ("b/one.cls", b"0"),  # wins over .json
            ("b/one.png", b"jpg before png"),
            ("b/._one.png", b"left by a Mac"),
            ("__meta__.json", b"{}"),
            ("README", b"no sample"),
        ],
    )
    found = {name: (data, label) for data, label, name in read_all(open_source(str(tmp_path / "x.tar"), "train"))}
    assert found == {
        "x.tar:a/one.JPG": (encode(1, "JPEG"), 1),
        "x.tar:b/one.jpeg": (encode(2, "JPEG"), 0),
        "x.tar:two.webp": (encode(3, "WEBP"), 2),
    }
    assert decode(found["x.tar:two.webp"][0])[0, 0].tolist() == [3, 0, 0]


def test_everything_that_is_wrong_is_in_one_message(folder):
    whole = (folder / "train-001.tar").read_bytes()
    (folder / "train-002.tar").write_bytes(whole[: len(whole) // 2])
    (folder / "train-003.tar").write_bytes(gzip.compress(whole))
    with gzip.open(folder / "train-004.tar.gz", "wb") as file:
        file.write(whole)
    write_tar(
        folder / "train-005.tar",
        [
            ("a.png", encode(0)),
            ("b.cls", b"1"),
            ("c.png", encode(0)),
            ("c.cls", b"cat"),
            ("d.png", encode(0)),
            ("d.json", b'{"label": "1"}'),
            ("e.png", encode(0)),
            ("e.json", b"{"),
        ],
    )
    message = refuse(folder)
    assert message.startswith(f"tar shards {folder}: expected train-000000.tar, ... and test-000000.tar (or val-)")
    assert "found 8 problems in 4 of 6 shards. Repair or leave out these:" in message
    for line in (
        "train-002.tar: truncated: it ends at byte",
        "train-003.tar: compressed, and the middle of a compressed file cannot be reached: run `gunzip` on it",
        "train-004.tar.gz: compressed",
        "train-005.tar: a: no label (.cls, or .json with `label`) beside .png",
        "train-005.tar: b: no image (.jpg, .jpeg, .png, .webp, .bmp, .tif, .tiff, .gif) among .cls",
        "train-005.tar: c: .cls holds 'cat', expected an integer from 0 to 999,999",
        "train-005.tar: d: .json has the label '1', expected an integer",
        "train-005.tar: e: .json cannot be read (Expecting property name",
    ):
        assert line in message
    (folder / "classes.txt").write_text("ant\nbee\ncat\n")
    assert len(open_source(str(folder), "test")) == 5  # a split that is not asked for is not looked at


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.png", encode(0)), ("a.cls", b"-1")], "a: .cls holds '-1', expected an integer"),
        (
            [("a.png", encode(0)), ("a.cls", b"1000000")],
            "a: .cls holds '1000000', expected an integer from 0 to 999,999",
        ),
        ([("a.png", encode(0)), ("a.cls", b"1.0")], "a: .cls holds '1.0'"),
        ([("a.png", encode(0)), ("a.json", b'{"label": true}')], "a: .json has the label True"),
        ([("a.png", encode(0)), ("a.json", b"[1]")], "a: .json has the label None"),
        ([("a.png", encode(0)), ("a.cls", b"1"), ("a.png", encode(0))], "a.png is there twice"),
        ([("README", b"")], "holds no samples"),
    ],
)
def test_samples_that_are_none_are_refused(tmp_path, members, message):
    write_tar(tmp_path / "x.tar", members)
    assert message in refuse(tmp_path)


def test_an_image_that_is_a_link_is_refused(tmp_path):
    write_tar(tmp_path / "x.tar", [("a.cls", b"1")])
    with tarfile.open(tmp_path / "x.tar", "a") as file:
        info = tarfile.TarInfo("a.png")
        info.type, info.linkname = tarfile.SYMTYPE, "elsewhere.png"
        file.addfile(info)
    assert "a: its image is a link; pack with" in refuse(tmp_path)
