"""The index of tar shards: kept beside them, used while a shard is what it was, and made again otherwise."""

import os

import pytest
from tar_shards import ORDER_OF_TRAIN, read_all, refuse, samples, values, write_shards, write_tar

from vit_jax.data.formats import tarstore
from vit_jax.data.open import open_source


@pytest.fixture
def folder(tmp_path):
    return write_shards(tmp_path / "shards")


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
