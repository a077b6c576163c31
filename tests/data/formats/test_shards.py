"""WebDataset's tar shards as a data set: samples, reading order, refusals, and the index that is kept."""

import concurrent.futures
import contextlib
import gzip
import io
import json
import os
import pickle
import shutil
import tarfile

import numpy as np
import PIL.Image
import pytest

from vit_jax.config import load
from vit_jax.data.formats import shards, tarnames, tarstore
from vit_jax.data.image.decode import decode
from vit_jax.data.image.recipes import make_transform
from vit_jax.data.open import open_source
from vit_jax.data.prepare.pack import pack
from vit_jax.data.stream.loader import train_batches
from vit_jax.types import UserError

# `printf train/0003.png | md5sum` and so on, for 0 to 19, sorted: worked out in the shell.
ORDER_OF_TRAIN = [11, 12, 10, 8, 16, 2, 6, 17, 19, 18, 13, 0, 5, 14, 9, 4, 7, 1, 15, 3]


def encode(value, fmt="PNG"):
    file = io.BytesIO()
    PIL.Image.new("RGB", (5, 4), (value, 0, 0)).save(file, fmt, lossless=True)
    return file.getvalue()


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))


def samples(start, stop, label=lambda i: i % 3):
    for i in range(start, stop):
        yield f"{i:04d}.cls", b"%d" % label(i)
        yield f"{i:04d}.png", encode(i)


@pytest.fixture
def folder(tmp_path):
    """Two shards to train on, 20 samples, and one to test with, 5; three classes."""
    root = tmp_path / "shards"
    write_tar(root / "train-000.tar", samples(0, 12))
    write_tar(root / "train-001.tar", samples(12, 20))
    write_tar(root / "test-000.tar", samples(0, 5))
    return root


def read_all(source):
    return [source.read(index) for index in range(len(source))]


def values(source):
    return [int(decode(data)[0, 0, 0]) for data, _, _ in read_all(source)]


def test_shards_are_read_with_their_labels_and_names(folder):
    source = open_source(str(folder), "train")
    assert (len(source), source.spec.num_examples, source.spec.num_classes) == (20, 20, 3)
    assert source.spec.class_names == ("0", "1", "2")
    for data, label, name in read_all(source):
        shard, _, member = name.partition(":")
        i = int(member.removesuffix(".png"))
        assert data == encode(i)
        assert label == i % 3
        assert shard == ("train-000.tar" if i < 12 else "train-001.tar")
    assert sorted(values(source)) == list(range(20))
    assert open_source(str(folder), "test").spec.num_classes == 3


def test_order_is_that_of_the_md5_of_split_and_name(folder):
    order = ORDER_OF_TRAIN
    assert values(open_source(str(folder), "train")) == order
    assert values(open_source(str(folder), "train[:50%]")) == order[:10]
    both = open_source(str(folder), "train[-3:]+test")
    assert values(both)[:3] == order[-3:]
    assert sorted(values(both)[3:]) == [0, 1, 2, 3, 4]
    assert len(open_source(str(folder), "all")) == 25


def test_patterns_name_shards(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    for name in (
        "shards/train-{000..001}.tar",
        "shards/train-*.tar",
        "shards/train-00{0,1}.tar",
        "./shards/t*n-00?.tar",
    ):
        assert values(open_source(name, "train")) == ORDER_OF_TRAIN
    assert sorted(values(open_source("shards/train-001.tar", "train"))) == list(range(12, 20))
    monkeypatch.chdir(folder)
    assert len(open_source("train-{000..001}.tar", "train")) == 20
    assert len(open_source("{train,test}-000.tar", "test")) == 5
    with pytest.raises(UserError, match=r"2 of the shards it names are not in .*: train-002.tar, train-003.tar; check"):
        open_source("train-{000..003}.tar", "train")
    with pytest.raises(UserError, match="1 of the shards it names are not in"):
        open_source("val-*.tar", "val")


def test_a_shard_belongs_to_the_split_that_its_name_or_folder_says(tmp_path):
    def splits(*names):
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        for i, name in enumerate(names):
            write_tar(root / name, samples(i, i + 1, lambda i: 0))
        return {s: values(open_source(str(root), s)) for s in tarnames.shard_splits(str(root))}

    assert splits("imagenet-train-0.tar", "imagenet-val-0.tar") == {"train": [0], "val": [1]}
    assert splits("train/0.tar", "test/0.tar") == {"train": [0], "test": [1]}
    assert {s: sorted(found) for s, found in splits("00000.tar", "contest1.tar").items()} == {"train": [0, 1]}
    assert splits("Train0.tar", "validation_0.tar", "train-dev-0.tar") == {"train": [0], "validation": [1], "dev": [2]}
    write_tar(tmp_path / "val" / "00.tar", samples(7, 8, lambda i: 0))
    assert values(open_source(str(tmp_path / "val"), "val")) == [7]
    with pytest.raises(UserError, match=r"no split 'train' in 'train\[:1\]'; its splits are val"):
        open_source(str(tmp_path / "val"), "train[:1]")


def test_a_tar_file_beside_a_folder_of_classes_changes_nothing(folder):
    place = folder.parent / "images" / "train" / "ant"
    place.mkdir(parents=True)
    (place / "a.png").write_bytes(encode(9))
    shutil.copy(folder / "test-000.tar", folder.parent / "images" / "images.tar")
    assert open_source(str(folder.parent / "images"), "train").read(0) == (encode(9), 0, "train/ant/a.png")


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


def test_classes_are_those_of_classes_txt(folder):
    (folder / "classes.txt").write_text("ant\nbee\ncat\ndog\n\n")
    assert open_source(str(folder / "train-000.tar"), "train").spec.class_names == ("ant", "bee", "cat", "dog")
    (folder / "classes.txt").write_text("ant\nbee\n")
    with pytest.raises(UserError, match=r"train has label 2, and .*classes.txt has 2 classes; labels count from 0"):
        open_source(str(folder), "train")
    (folder / "classes.txt").write_text("ant\nbee\nant\n")
    with pytest.raises(UserError, match=r"classes.txt: expected one class name a line, each once; found ant twice"):
        open_source(str(folder), "train")
    (folder / "classes.txt").unlink()
    write_tar(folder / "test-001.tar", samples(30, 31, lambda i: 3))
    with pytest.raises(UserError, match="test has label 3, and train has 3 classes"):
        open_source(str(folder), "test")
    assert open_source(str(folder / "test-*.tar"), "test").spec.num_classes == 4  # no train there to decide


def refuse(dataset, split="train"):
    with pytest.raises(UserError) as error:
        open_source(str(dataset), split)
    return str(error.value)


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


def test_many_problems_are_counted_and_ten_are_shown(tmp_path):
    write_tar(tmp_path / "x.tar", [(f"{i}.png", b"") for i in range(25)])
    message = refuse(tmp_path)
    assert "found 25 problems in 1 of 1 shards" in message
    assert message.count("no label") == 10
    assert message.endswith("and 15 more")


def test_an_image_that_is_a_link_is_refused(tmp_path):
    write_tar(tmp_path / "x.tar", [("a.cls", b"1")])
    with tarfile.open(tmp_path / "x.tar", "a") as file:
        info = tarfile.TarInfo("a.png")
        info.type, info.linkname = tarfile.SYMTYPE, "elsewhere.png"
        file.addfile(info)
    assert "a: its image is a link; pack with" in refuse(tmp_path)


def test_a_key_in_two_shards_is_refused(folder):
    write_tar(folder / "train-002.tar", samples(11, 13))
    message = refuse(folder)
    assert "found 2 keys of train in more than one shard" in message
    assert "0011.png of train-000.tar is in train-002.tar too" in message
    assert "0012.png of train-001.tar is in train-002.tar too" in message
    assert len(open_source(str(folder), "test")) == 5  # whose keys are those of train


def test_what_is_not_there_is_said(tmp_path):
    assert "1 of the shards it names are not in" in refuse(tmp_path / "none.tar")
    assert "expected FOLDER/train/<class>" in refuse(tmp_path)  # a folder without shards is a folder of images
    (tmp_path / "train.tar").mkdir()
    assert "train.tar: cannot be read" in refuse(tmp_path)


@pytest.fixture
def scanned(monkeypatch):
    """Names of the shards whose headers were read."""
    names, scan = [], tarstore.scan_shard

    def counted(path, *arguments):
        names.append(os.path.basename(path))
        return scan(path, *arguments)

    monkeypatch.setattr(tarstore, "scan_shard", counted)
    return names


def test_headers_are_read_once_and_again_when_a_shard_changes(folder, scanned):
    first = read_all(open_source(str(folder), "train"))
    assert sorted(scanned) == ["train-000.tar", "train-001.tar"]
    scanned.clear()
    assert read_all(open_source(str(folder), "train")) == first
    assert read_all(open_source(str(folder / "train-*.tar"), "train")) == first
    assert scanned == []
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == [tarstore.FILE]
    open_source(str(folder), "test")
    assert scanned == ["test-000.tar"]
    scanned.clear()
    write_tar(folder / "train-001.tar", samples(40, 43))
    assert sorted(values(open_source(str(folder), "train"))) == [*range(12), 40, 41, 42]
    assert scanned == ["train-001.tar"]
    scanned.clear()
    stat = os.stat(folder / "test-000.tar")
    os.utime(folder / "test-000.tar", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    open_source(str(folder), "test")
    assert scanned == ["test-000.tar"]
    scanned.clear()
    (folder / "train-000.tar").unlink()
    assert len(open_source(str(folder), "train")) == 3
    assert scanned == []


def test_where_the_folder_is_read_only_the_index_goes_to_the_users_cache(folder, scanned, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (folder / tarstore.FILE).mkdir()  # stands in for a folder that refuses, which root's never does
    open_source(str(folder), "train")
    kept = list((tmp_path / "cache").rglob("*.npz"))
    assert len(kept) == 1
    scanned.clear()
    assert values(open_source(str(folder), "train")) == ORDER_OF_TRAIN
    assert scanned == []
    assert sorted(p.name for p in folder.iterdir()) == [tarstore.FILE, "test-000.tar", "train-000.tar", "train-001.tar"]


@pytest.mark.parametrize("content", [b"", b"no index", b"PK\x03\x04 half a zip"])
def test_a_damaged_index_is_made_anew(folder, scanned, content):
    (folder / tarstore.FILE).write_bytes(content)
    assert values(open_source(str(folder), "train")) == ORDER_OF_TRAIN
    scanned.clear()
    assert values(open_source(str(folder), "train")) == ORDER_OF_TRAIN
    assert scanned == []


def test_the_good_shards_of_a_set_with_a_bad_one_are_not_read_twice(folder, scanned):
    (folder / "train-002.tar").write_bytes(b"")
    refuse(folder)
    (folder / "train-002.tar").unlink()
    scanned.clear()
    assert len(open_source(str(folder), "train")) == 20
    assert scanned == []


def test_a_source_is_pickled_without_its_files_and_read_by_many_threads(folder, monkeypatch):
    monkeypatch.setattr(shards, "MAX_OPEN", 1)  # the second shard is opened for each read
    source = open_source(str(folder), "train")
    expected = read_all(source)
    copy = pickle.loads(pickle.dumps(source))
    assert copy.spec == source.spec
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(copy.read, list(range(20)) * 20)) == expected * 20
    part = source.part(5, 9)
    assert (len(part), part.spec.num_examples, part.num_bytes()) == (4, 4, sum(len(data) for data, *_ in expected[5:9]))
    assert read_all(pickle.loads(pickle.dumps(part))) == expected[5:9]
    assert source.num_bytes() == sum(len(encode(i)) for i in range(20))


def test_a_shard_that_disappears_reads_as_no_bytes_under_its_name(folder):
    source = open_source(str(folder), "train")
    (folder / "train-001.tar").unlink()
    for data, _, name in read_all(source):
        assert (data == b"") == name.startswith("train-001.tar:")


@pytest.fixture
def images(tmp_path):
    """A folder of three classes, and the same images as tar shards: two to train with, one to test."""
    root, rng = tmp_path / "images", np.random.default_rng(0)
    members = {"train": [], "test": []}
    for split, count in (("train", 10), ("test", 3)):
        for label, name in enumerate(("ant", "bee", "cat")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                place = root / split / name / f"{i}.{'jpg' if i % 2 else 'png'}"
                PIL.Image.fromarray(rng.integers(0, 256, (20 + i, 30 - i, 3), np.uint8)).save(place)
                members[split].append((str(place.relative_to(root)), place.read_bytes(), label))

    def both(chosen):
        for name, data, label in chosen:
            yield name, data
            yield f"{name.rpartition('.')[0]}.cls", b"%d" % label

    place = tmp_path / "shards"
    write_tar(place / "train-0.tar", both(members["train"][::2]))
    write_tar(place / "train-1.tar", both(members["train"][1::2]))
    # As `tar -C images/test` has it: the split's name is not in the members' names.
    write_tar(place / "test-0.tar", both((n.partition("/")[2], *rest) for n, *rest in members["test"]))
    (place / "classes.txt").write_text("ant\nbee\ncat\n")
    return root, place


def first_batches(dataset, workers=0):
    source = open_source(str(dataset), "train[:80%]")
    transform = make_transform("pretrain", (16, 16))
    loader = train_batches(source, transform, batch_size=8, seed=3, workers=workers, threads=0)
    with contextlib.closing(loader):
        return [next(loader) for _ in range(5)]  # into the second epoch


def test_shards_packed_shards_and_the_folder_give_the_same_batches(images, tmp_path):
    root, place = images
    pack(str(place), str(tmp_path / "packed"))
    pack(str(place), str(tmp_path / "packed3"), num_shards=3)
    pack(str(root), str(tmp_path / "from_folder"), num_shards=3)
    expected = first_batches(root)
    assert len({batch.image.tobytes() for batch in expected}) == 5
    others = [first_batches(p) for p in (place, tmp_path / "packed", tmp_path / "packed3", tmp_path / "from_folder")]
    for other in (*others, first_batches(place, workers=1)):
        for found, batch in zip(other, expected, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(found, batch, strict=True))
    for dataset in (place, tmp_path / "packed3"):
        source = open_source(str(dataset), "test")
        assert (source.spec.num_examples, source.spec.class_names) == (9, ("ant", "bee", "cat"))
        assert [source.read(i)[:2] for i in range(9)] == [open_source(str(root), "test").read(i)[:2] for i in range(9)]


def test_several_shards_hold_equally_many_and_packing_twice_gives_the_same_files(images, tmp_path):
    root, place = images
    packed = pack(str(root), str(tmp_path / "a"), num_shards=4, threads=1)
    pack(str(place), str(tmp_path / "b"), num_shards=4, threads=3)
    assert packed.splits == {"test": 9, "train": 30}
    info = {s["name"]: s for s in json.loads((tmp_path / "a" / "dataset_info.json").read_text())["splits"]}
    assert info["train"]["shardLengths"] == ["8", "7", "7", "8"]  # round(30 i / 4) = 8, 15, 22, 30
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == sorted(p.name for p in (tmp_path / "b").iterdir())
    assert "packed-train.array_record-00003-of-00004" in names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_shard_of_corrupt_images_alone_leaves_no_gap(folder, tmp_path):
    order = ORDER_OF_TRAIN
    write_tar(
        folder / "train-000.tar",
        [(n, b"no image" if n.endswith("png") and int(n[:4]) in order[5:10] else d) for n, d in samples(0, 12)],
    )
    write_tar(
        folder / "train-001.tar",
        [(n, b"no image" if n.endswith("png") and int(n[:4]) in order[5:10] else d) for n, d in samples(12, 20)],
    )
    packed = pack(str(folder), str(tmp_path / "packed"), num_shards=4)
    assert packed.splits == {"test": 5, "train": 15}
    assert len(packed.corrupt) == 5
    assert values(open_source(str(tmp_path / "packed"), "train")) == order[:5] + order[10:]
    assert len(list((tmp_path / "packed").glob("packed-train*-of-00003"))) == 3


def test_shards_are_fine_tuned_with_the_splits_they_have(images, monkeypatch):
    _, place = images
    for dataset in (str(place), f"{place}/*.tar", f"{place}/t*-{{0..0}}.tar"):
        config = load(f"configs/finetune.py:variant=Ti/16,dataset={dataset}")
        assert (config.data.dataset, config.data.split) == (dataset, "train")
        assert config.evals["test"].split == "test"
    config = load(f"configs/finetune.py:variant=Ti/16,dataset={place}/train-{{0..1}}.tar")
    assert config.data.split == "train_kept"
