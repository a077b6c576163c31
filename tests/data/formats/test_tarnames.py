"""From a data set's name to its tar shards, and from a shard's name to its split."""

import shutil

import pytest
from tar_shards import ORDER_OF_TRAIN, encode, refuse, samples, values, write_shards, write_tar

from vit_jax.data.formats import tarnames
from vit_jax.data.open import open_source
from vit_jax.types import UserError


@pytest.fixture
def folder(tmp_path):
    return write_shards(tmp_path / "shards")


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


def test_what_is_not_there_is_said(tmp_path):
    assert "1 of the shards it names are not in" in refuse(tmp_path / "none.tar")
    assert "expected FOLDER/train/<class>" in refuse(tmp_path)  # a folder without shards is a folder of images
    (tmp_path / "train.tar").mkdir()
    assert "train.tar: cannot be read" in refuse(tmp_path)
