"""Folders at URLs, on fsspec's store in memory; the expected files are read from that store by fsspec itself."""

import shutil
from collections import namedtuple

import fsspec
import pytest

from vit_jax.remote import Remote, explained, is_url, named
from vit_jax.types import UserError

MEMORY = fsspec.filesystem("memory")


@pytest.fixture
def remote():
    """A folder in memory, gone afterwards."""
    yield Remote("memory://bucket/run/")
    MEMORY.store.clear()
    MEMORY.pseudo_dirs[:] = [""]


def test_urls_are_told_from_paths():
    assert [is_url(path) for path in ("gs://b/x", "memory://x", "runs/mine", "/a://b", "c:/x")] == [1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("gs://bucket/run", r'the driver of gs:// is not installed; pip install "vit_jax\[gs\]"$'),
        ("nope://x", "Protocol not known: nope; expected gs://, s3:// or another scheme"),
        ("simplecache::memory://x", "expected one plain address"),
        ("reference://x", "expected one plain address"),
        ("memory://b/ru[n", r"has '\[' in it"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_what_to_do(monkeypatch, url, message):
    def absent(url):
        raise ImportError("Please install gcsfs to access Google Storage")

    if url.startswith("gs:"):
        monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
    with pytest.raises(UserError, match=message):
        Remote(url)


def test_files_go_there_and_come_back(remote, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "1").write_bytes(b"one")
    (tmp_path / "2").write_bytes(b"")
    assert remote.list() == {}
    remote.put(tmp_path, ["a/b/1", "2"])
    assert MEMORY.cat("/bucket/run/a/b/1") == b"one"
    assert remote.list() == {"a/b/1": 3, "2": 0}
    assert remote.list("a") == {"a/b/1": 3}
    remote.fetch({"a/b/1": 3}, tmp_path / "copy")
    assert (tmp_path / "copy/a/b/1").read_bytes() == b"one"
    remote.replace("a/b/1", b"other")
    assert (remote.read("a/b/1"), remote.read("a/c"), remote.size("a/b/1")) == (b"other", None, 5)
    assert sorted(MEMORY.find("/bucket")) == ["/bucket/run/2", "/bucket/run/a/b/1"]
    remote.remove("a", recursive=True)
    remote.remove("a", recursive=True)
    assert remote.list() == {"2": 0}


def test_a_file_that_is_replaced_is_never_half_written(remote, monkeypatch):
    remote.replace("x", b"old")

    def killed(path, content):
        with MEMORY.open(path, "wb") as file:
            file.write(content[:1])
        raise OSError("killed")

    monkeypatch.setattr(type(MEMORY), "pipe_file", lambda self, path, content: killed(path, content))
    with pytest.raises(OSError, match="killed"):
        remote.replace("x", b"new")
    assert remote.read("x") == b"old"


def test_an_object_store_is_asked_for_one_request_a_file_and_never_for_a_bucket(monkeypatch):
    asked = []

    class Store:
        def __getattr__(self, name):
            return lambda *words: asked.append((name, *words))

    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url: (Store(), "bucket/run"))
    Remote("gs://bucket/run").replace("config.json", b"{}")
    assert asked == [("pipe_file", "bucket/run/config.json", b"{}")]


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a\\x", "a//x"])
def test_names_from_outside_are_refused_before_anything_is_fetched(remote, monkeypatch, name):
    monkeypatch.setattr(type(MEMORY), "find", lambda *_, **__: {f"/bucket/run/{name}": {"size": 1}})
    with pytest.raises(UserError, match=r"lists the name .* which is not in it; nothing was fetched"):
        remote.list()


def test_a_copy_that_is_too_short_or_too_large_is_an_error(remote, tmp_path, monkeypatch):
    remote.replace("x", b"abc")
    with pytest.raises(OSError, match="x has 4 bytes, of which 3 came"):
        remote.fetch({"x": 4}, tmp_path)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9, 8, 1))
    with pytest.raises(UserError, match=r"3 bytes are to be fetched, and .* has room for 1; make room, or set TMPDIR"):
        remote.fetch({"x": 3}, tmp_path / "full")


def test_messages_name_the_url():
    with pytest.raises(UserError, match=r"^memory://x/a is broken$"), named("/tmp/copy", "memory://x"):
        raise UserError("/tmp/copy/a is broken")
    expected = r"^gs://b could not be read \(KeyError: 'no'\); check the address"
    with pytest.raises(UserError, match=expected), explained("gs://b", "read"):
        raise KeyError("no")
