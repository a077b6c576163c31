"""Tar shards that are no files, have false headers or an altered index: counted, refused by name or ignored, at once."""

import io
import json
import os
import tarfile

import numpy as np
import pytest
from tar_shards import encode, write_tar

from vit_jax.data.formats import tarindex, tarnames, tarstore
from vit_jax.data.image.decode import decode
from vit_jax.data.open import open_source
from vit_jax.data.prepare.pack import pack
from vit_jax.types import UserError


@pytest.fixture
def folder(tmp_path):
    """One shard of 12 samples in three classes."""
    samples = [
        (f"{i:02}.{kind}", data) for i in range(12) for kind, data in (("png", encode(i)), ("cls", b"%d" % (i % 3)))
    ]
    write_tar(tmp_path / "shards" / "train-0.tar", samples)
    return tmp_path / "shards"


def refuse(dataset, split="train"):
    with pytest.raises(UserError) as caught:
        open_source(str(dataset), split)
    return str(caught.value)


def values(source):
    return sorted(int(decode(source.read(i)[0])[0, 0, 0]) for i in range(len(source)))


def test_a_shard_that_is_no_regular_file_is_refused_at_once(folder):
    os.mkfifo(folder / "train-1.tar")
    (folder / "train-2.tar").symlink_to("/dev/zero")
    message = refuse(folder)
    assert "train-1.tar is a named pipe; expected a regular file" in message
    assert "train-2.tar is a device; expected a regular file" in message


def test_fifty_gigabytes_of_nothing_after_the_end_are_not_read(folder):
    with open(folder / "train-0.tar", "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        file.truncate(end + 50 * 2**30)
    assert "of 53,687,1" in (message := refuse(folder))
    assert "is this file filled up with zeros?" in message
    with open(folder / "train-0.tar", "r+b") as file:
        file.truncate(end + 2**20)  # a little padding is as programs write it
    assert len(open_source(str(folder), "train")) == 12


def test_an_image_of_gigabytes_is_a_corrupt_one(folder, caplog):
    info = tarfile.TarInfo("99.png")
    info.size = 2**33
    with open(folder / "train-1.tar", "wb") as file:
        file.write(info.tobuf(format=tarfile.GNU_FORMAT))
        file.seek(2**33, os.SEEK_CUR)
        write_tar(folder / "tail", [("99.cls", b"1")])
        file.write((folder / "tail").read_bytes())
    source = open_source(str(folder), "train")
    assert [name for data, _, name in map(source.read, range(13)) if not data] == ["train-1.tar:99.png"]
    assert "8,589,934,592 bytes; expected at most 536,870,912" in caplog.text


@pytest.mark.parametrize(
    "pattern",
    [
        "train-{000000..999999999}.tar",
        f"train-{'{a,b}' * 26}.tar",
        "train-{0..999}{0..999}{0..9}.tar",
        "{0..99999999999}.tar",
    ],
)
def test_a_pattern_that_means_millions_of_shards_is_refused_at_once(folder, pattern):
    assert "the pattern means more than 1,000,000 shards; check its numbers" in refuse(f"{folder}/{pattern}")


def test_patterns_are_expanded_as_a_shell_does_and_missing_shards_are_counted(folder):
    expanded = tarnames._expand("", "a-{08..10}.{x,y}-{,z}")
    assert expanded == [f"a-{n}.{c}-{end}" for n in ("08", "09", "10") for c in "xy" for end in ("", "z")]
    assert tarnames._expand("", "{3..1}.tar") == []
    assert f"1999 of the shards it names are not in {folder}: train-1.tar, train-2.tar" in refuse(
        f"{folder}/train-{{0..1999}}.tar"
    )
    assert "1 of the shards" in refuse(f"{folder}/train-{'{' + '1' * 5000}..{'2' * 5000}}}.tar")
    assert "`**` is not understood" in refuse(f"{folder}/**/train-0.tar")


def test_classes_txt_that_is_no_text_is_one_error_and_repeated_names_are_found_fast(folder):
    (folder / "classes.txt").write_bytes(b"caf\xe9\nb\nc\n")
    assert "classes.txt cannot be read ('utf-8' codec can't decode" in refuse(folder)
    (folder / "classes.txt").write_text("\n".join(f"{i // 2}" for i in range(200_000)))
    assert "classes.txt: expected one class name a line, each once; found 0, 1, 10, 100, 1000 twice" in refuse(folder)
    (folder / "classes.txt").unlink()
    os.mkfifo(folder / "classes.txt")
    assert "is a named pipe" in refuse(folder)


def test_json_that_is_nested_deeply_or_large_is_a_problem_of_its_sample(folder):
    write_tar(folder / "train-1.tar", [("a.png", encode(1)), ("a.json", b"[" * 200_000)])
    assert "train-1.tar: a: .json cannot be read (nested too deeply)" in refuse(folder)
    write_tar(folder / "train-1.tar", [("a.png", encode(1)), ("a.json", b'{"label": ' + b"1" * 5000 + b"}")])
    assert "train-1.tar: a: .json cannot be read (Exceeds the limit" in refuse(folder)
    info = tarfile.TarInfo("a.json")
    info.size = 2**30
    with open(folder / "train-1.tar", "wb") as file:
        file.write(info.tobuf())
        file.seek(2**30, os.SEEK_CUR)
        write_tar(folder / "tail", [("a.png", encode(1))])
        file.write((folder / "tail").read_bytes())
    assert "train-1.tar: a: .json cannot be read (1,073,741,824 bytes, expected at most 67,108,864)" in refuse(folder)


def test_every_format_is_an_image_and_the_first_kinds_come_first(folder):
    kinds = ("bmp", "tif", "tiff", "gif")
    members = [
        (f"x{i}.{kind}", encode(100 + i, "TIFF" if kind[0] == "t" else kind.upper())) for i, kind in enumerate(kinds)
    ]
    members += [(f"x{i}.cls", b"1") for i in range(len(kinds))] + [("x0.jpg", encode(50))]
    write_tar(folder / "train-1.tar", members)
    assert values(open_source(str(folder), "train"))[12:] == [50, 101, 102, 103]


def test_names_of_members_are_shown_escaped(folder):
    write_tar(folder / "train-1.tar", [("\x1b[2J.png", encode(99)), ("\x1b[2J.cls", b"1")])
    source = open_source(str(folder), "train")
    assert "train-1.tar:\\x1b[2J.png" in {name for _, _, name in map(source.read, range(13))}
    write_tar(folder / "train-2.tar", [("\x1b[2J.png", encode(99))])
    assert "train-2.tar: \\x1b[2J: no label" in refuse(folder)


ALTERED = {
    "labels below 0": {"label": lambda a: a * 0 - 5},
    "labels of no class": {"label": lambda a: a + tarindex.MAX_LABEL},
    "labels of another type": {"label": lambda a: a.astype(np.float32)},
    "sizes below 0": {"size": lambda a: -a},
    "positions below 0": {"offset": lambda a: -a},
    "names that end before they begin": {"name_end": lambda a: a[::-1]},
    "names that end behind the last": {"name_end": lambda a: a + 7},
    "fewer samples than are counted": {"counts": lambda a: a + 5},
    "a count below 0": {"counts": lambda a: -a},
    "a count that is text": {"counts": lambda a: a.astype(str)},
    "samples in two dimensions": {"offset": lambda a: a.reshape(2, -1)},
    "fewer bytes of names": {"bytes": lambda a: a - 3},
    "another version": {"version": lambda a: np.array(99)},
    "no version": {"version": lambda a: np.array([])},
    "objects": {"names": lambda a: np.array([None, {}], object)},
}


@pytest.mark.parametrize("change", ALTERED)
def test_an_index_that_no_scan_writes_is_ignored(folder, change):
    good = values(open_source(str(folder), "train"))
    with np.load(folder / tarstore.FILE) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for name, altered in ALTERED[change].items():
        arrays[name] = altered(arrays[name])
    np.savez(folder / tarstore.FILE, **arrays)
    source = open_source(str(folder), "train")
    assert values(source) == good
    assert [source.read(i)[1] == int(source.read(i)[2][-6:-4]) % 3 for i in range(12)] == [True] * 12


def test_an_index_that_lies_about_sizes_gives_corrupt_images_and_no_error(folder):
    open_source(str(folder), "train")
    with np.load(folder / tarstore.FILE) as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays["size"][:] = 2**40
    arrays["offset"][::2] = 2**62
    np.savez(folder / tarstore.FILE, **arrays)
    assert all(data == b"" for data, _, _ in map(open_source(str(folder), "train").read, range(12)))


@pytest.mark.parametrize("kind", ["pipe", "device", "compressed", "huge header"])
def test_an_index_that_is_no_file_or_would_fill_the_memory_is_ignored(folder, kind):
    place = folder / tarstore.FILE
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "device":
        place.symlink_to("/dev/zero")
    elif kind == "compressed":
        with open(place, "wb") as file:
            np.savez_compressed(file, version=np.array(1), label=np.zeros(2**26, np.int32))
    else:
        header = np.lib.format.header_data_from_array_1_0(np.zeros(0, np.int64)) | {"shape": (2**40,)}
        npy = io.BytesIO()
        np.lib.format.write_array_header_1_0(npy, header)
        import zipfile

        with zipfile.ZipFile(place, "w") as file:
            file.writestr("version.npy", npy.getvalue())
    assert values(open_source(str(folder), "train")) == list(range(12))


def test_what_cannot_be_read_is_left_out_when_shards_are_packed(folder, tmp_path):
    write_tar(folder / "train-1.tar", [("99.png", b"%!PS-Adobe"), ("99.cls", b"1")])
    packed = pack(str(folder), str(tmp_path / "packed"))
    assert packed.splits == {"train": 12}
    assert packed.corrupt == [
        "train-1.tar:99.png: no JPEG, PNG, WEBP, BMP, TIFF, GIF: it begins with b'%!PS-Adobe'",
    ]
    assert json.loads((tmp_path / "packed" / "dataset_info.json").read_text())["name"] == "packed"
