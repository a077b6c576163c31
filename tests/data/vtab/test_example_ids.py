"""Ids of VTAB's examples: read once, kept beside the data, and read again when the data changes."""

import shutil
from pathlib import Path

import generated
import pytest
from vtab_numbered import COUNTS, numbered

from vit_jax.data.vtab import example_ids


def test_the_index_is_read_once_and_again_when_the_data_changes(tmp_path, monkeypatch):
    builder = generated.prepare("dtd", tmp_path, COUNTS, numbered(0, 1))
    first = example_ids.ids_of(builder, "dtd", "train")
    assert sorted(first) == [f"train_{i:03d}" for i in range(24)]
    with monkeypatch.context() as patch:
        patch.setattr(example_ids, "_read_ids", lambda *_: pytest.fail("was read again"))
        assert example_ids.ids_of(builder, "dtd", "train") == first
    shutil.copy(cache := Path(builder.data_dir) / "example_ids.train.txt", tmp_path / "old")
    shutil.rmtree(tmp_path / "dtd")
    builder = generated.prepare("dtd", tmp_path, {**COUNTS, "train": 23}, numbered(3, 5))
    shutil.copy(tmp_path / "old", cache)
    assert len(example_ids.ids_of(builder, "dtd", "train")) == 23
