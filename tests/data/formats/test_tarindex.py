"""The samples of a tar shard, found from its headers, and everything that is wrong with them."""

import gzip
import itertools
import tarfile

import pytest
from tar_shards import encode, read_all, refuse, write_shards, write_tar

from vit_jax.data.formats.tarindex import could_be_scanned, join, scan_shard
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


def halves(digest):
    """An MD5 as md5sum prints it, as two numbers."""
    return [int(digest[:16], 16), int(digest[16:], 16)]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("b/0001.png", "8d09bee344cde8af7177266ac9adf32b"),
        ("./b/0001.png", "8d09bee344cde8af7177266ac9adf32b"),
        ("train/b/0001.png", "7779a12c7c2847bbf30165e1305615d6"),
    ],
)
def test_the_order_is_that_of_split_and_name_and_the_key_that_of_the_name_alone(tmp_path, name, key):
    write_tar(tmp_path / "x.tar", [(name, encode(1)), (name.replace("png", "cls"), b"3")])
    shard = scan_shard(str(tmp_path / "x.tar"), "train", (7, 8))
    assert (shard.problems, shard.stamp, shard.rows.label.tolist()) == ((), (7, 8), [3])
    assert shard.rows.order.tolist() == [halves("cdb7865436aaf154e40320281ccbd591")]
    assert shard.rows.key.tolist() == [halves(key)]
    assert bytes(shard.rows.names).decode() == name.removeprefix("./")
    content = (tmp_path / "x.tar").read_bytes()
    start, size = int(shard.rows.offset[0]), int(shard.rows.size[0])
    assert content[start : start + size] == encode(1)


def test_shards_are_joined_one_behind_the_other_with_their_names(tmp_path):
    parts = []
    for i, names in enumerate((["a.png", "bb.png"], ["ccc.png"])):
        write_tar(tmp_path / f"{i}.tar", [(x, d) for n in names for x, d in ((n, encode(i)), (n[:-3] + "cls", b"1"))])
        parts.append(scan_shard(str(tmp_path / f"{i}.tar"), "train").rows)
    whole = join(parts)
    ends = [0, *whole.name_end.tolist()]
    names = bytes(whole.names).decode()
    assert [names[a:b] for a, b in itertools.pairwise(ends)] == ["a.png", "bb.png", "ccc.png"]
    assert whole.num_samples == 3
    assert whole.key.tolist() == [*parts[0].key.tolist(), *parts[1].key.tolist()]
    assert [could_be_scanned(part, len(part.offset), len(part.names)) for part in (*parts, whole)] == [True] * 3
    assert not could_be_scanned(whole, 2, len(whole.names))
    assert not could_be_scanned(whole, 3, len(whole.names) - 1)
    assert not could_be_scanned(whole._replace(label=whole.label + 10**6), 3, len(whole.names))


def test_a_shard_that_cannot_be_opened_is_a_problem_and_no_error(tmp_path):
    shard = scan_shard(str(tmp_path / "none.tar"), "train")
    assert shard.problems == ("cannot be read (No such file or directory)",)
    assert shard.rows.num_samples == 0
