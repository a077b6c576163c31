"""Ids of VTAB's examples: read once, kept beside the data, and read again when the data changes."""

import shutil
from pathlib import Path

import generated
import pytest
from vtab_numbered import COUNTS, numbered

from vit_jax.data.vtab import example_ids
from vit_jax.types import UserError


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


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"another head\n", "one id too few"], ids=str)
def test_a_kept_file_that_is_damaged_is_read_again_from_the_data(tmp_path, damage):
    builder = generated.prepare("dtd", tmp_path, {"train": 5, "test": 1, "validation": 1}, numbered(0, 1))
    ids = example_ids.ids_of(builder, "dtd", "train")
    kept = Path(builder.data_dir) / "example_ids.train.txt"
    whole = kept.read_bytes()
    assert whole.decode().splitlines()[1:] == ids
    kept.write_bytes(b"\n".join(whole.splitlines()[:-1]) if isinstance(damage, str) else damage)
    assert example_ids.ids_of(builder, "dtd", "train") == ids
    assert kept.read_bytes() == whole


def test_where_nothing_may_be_written_the_ids_are_read_and_that_is_said(tmp_path, caplog):
    builder = generated.prepare("dtd", tmp_path, {"train": 5, "test": 1, "validation": 1}, numbered(0, 1))
    (
        Path(builder.data_dir) / "example_ids.train.txt"
    ).mkdir()  # stands in for a folder that refuses, which root's never does
    assert sorted(example_ids.ids_of(builder, "dtd", "train")) == [f"train_{i:03d}" for i in range(5)]
    assert "the ids of dtd train are read again each time: cannot write" in caplog.text


def test_data_without_the_feature_that_names_its_examples_is_refused_with_the_command(tmp_path, monkeypatch):
    builder = generated.prepare("dtd", tmp_path, {"train": 2, "test": 1, "validation": 1})
    monkeypatch.setitem(example_ids.KEYS, "dtd", ("label", "image/path", "row"))
    with pytest.raises(UserError, match=r"^dtd/3.0.1 in .* has no image/path, row, by .*`vit_jax prepare dtd`$"):
        example_ids.ids_of(builder, "dtd", "train")


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    example_ids.write_whole("~/new/folder/ids.json", b"one")
    example_ids.write_whole("~/new/folder/ids.json", b"two")
    place = tmp_path / "new" / "folder"
    assert [(path.name, path.read_bytes()) for path in place.iterdir()] == [("ids.json", b"two")]
    with pytest.raises(UserError, match=r"^cannot write .*/ids.json/more/x: .*Not a directory"):
        example_ids.write_whole(str(place / "ids.json" / "more" / "x"), b"three")
    assert (place / "ids.json").read_bytes() == b"two"
