"""WebDataset's tar shards as a data set: samples, reading order, refusals, and the index that is kept."""

import concurrent.futures
import contextlib
import json
import pickle

import numpy as np
import PIL.Image
import pytest
from tar_shards import ORDER_OF_TRAIN, encode, read_all, refuse, samples, values, write_shards, write_tar

from vit_jax.config import load
from vit_jax.data.formats import shards
from vit_jax.data.image.recipes import make_transform
from vit_jax.data.open import open_source
from vit_jax.data.prepare.pack import pack
from vit_jax.data.stream.loader import train_batches
from vit_jax.types import UserError


@pytest.fixture
def folder(tmp_path):
    return write_shards(tmp_path / "shards")


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


def test_many_problems_are_counted_and_ten_are_shown(tmp_path):
    write_tar(tmp_path / "x.tar", [(f"{i}.png", b"") for i in range(25)])
    message = refuse(tmp_path)
    assert "found 25 problems in 1 of 1 shards" in message
    assert message.count("no label") == 10
    assert message.endswith("and 15 more")


def test_a_key_in_two_shards_is_refused(folder):
    write_tar(folder / "train-002.tar", samples(11, 13))
    message = refuse(folder)
    assert "found 2 keys of train in more than one shard" in message
    assert "0011.png of train-000.tar is in train-002.tar too" in message
    assert "0012.png of train-001.tar is in train-002.tar too" in message
    assert len(open_source(str(folder), "test")) == 5  # whose keys are those of train


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


@pytest.mark.slow
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
