"""The folder of a packed data set: file names and the description by which TFDS, which made the format, opens it."""

import json

import numpy as np
import pytest
from etils import epath

from vit_jax.data.prepare.packed import describe, is_packed, shard_path, write_labels


@pytest.fixture
def folder(tmp_path):
    """Described: 7 examples to train with in two shards, 2 to test with in one."""
    place = epath.Path(tmp_path)
    describe({"train": [(4, 400), (3, 310)], "test": [(2, 90)]}, ("ant", "bee", "caf\u00e9"), place)
    return place


def test_tfds_reads_the_description_as_it_was_meant(folder):
    import tensorflow_datasets as tfds

    info = tfds.builder_from_directory(str(folder)).info
    assert {name: (s.num_examples, s.shard_lengths, s.num_bytes) for name, s in info.splits.items()} == {
        "train": (7, [4, 3], 710),
        "test": (2, [2], 90),
    }
    assert info.features["label"].names == ["ant", "bee", "caf\u00e9"]
    assert info.features["image"].shape == (None, None, 3)
    assert info.supervised_keys == ("image", "label")
    assert info.disable_shuffling  # the order on disk is the source's own
    assert info.file_format.value == "array_record"


def test_shards_lie_where_tfds_looks_for_them(folder):
    import tensorflow_datasets as tfds

    written = [shard_path(folder, "train", shard, 2) for shard in range(2)]
    assert [epath.Path(path).name for path in written] == [
        "packed-train.array_record-00000-of-00002",
        "packed-train.array_record-00001-of-00002",
    ]
    assert list(map(str, tfds.builder_from_directory(str(folder)).info.splits["train"].filepaths)) == written


def test_labels_lie_beside_the_shards_as_numbers(folder):
    write_labels([2, 0, 1], folder, "train")
    found = np.load(folder / "vit_jax_labels.train.npy", allow_pickle=False)
    assert (found.tolist(), found.dtype) == ([2, 0, 1], np.int32)


def test_a_folder_is_packed_if_it_has_a_description(folder, tmp_path, monkeypatch):
    assert is_packed(str(folder))
    (tmp_path / "images").mkdir()
    assert not is_packed(str(tmp_path / "images"))
    assert not is_packed("cifar10")
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert is_packed(f"~/{tmp_path.name}")
    assert json.loads((folder / "dataset_info.json").read_text())["name"] == "packed"
