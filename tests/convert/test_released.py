"""The table of released weights, and fetching them into the cache."""

import re
from pathlib import Path

import numpy_vit
import pytest
from checkpoints import flat, same_bits, save_npz
from weights_server import npz, put, refused, there

from vit_jax.convert import released
from vit_jax.convert.load import load
from vit_jax.convert.released import TABLE, fetch, find, is_name
from vit_jax.types import UserError

# The table


def test_every_name_and_every_path_stands_once():
    assert len({row.name for row in TABLE}) == len(TABLE) == 37
    assert len({row.path for row in TABLE}) == len(TABLE)
    for row in TABLE:
        assert is_name(row.name)
        assert find(row.name) is row
        assert re.fullmatch(r"(vit_models|mixer_models|bit_models)/[\w.+/-]+\.npz", row.path)


def test_sizes_that_the_releases_list_are_in_the_table():
    # MiB, from the listings of the buckets and the releases' README.
    listed = {
        "imagenet21k:B/16": 393.69,
        "imagenet21k:B/32": 400.01,
        "imagenet21k:R50+B/16": 439.85,
        "imagenet21k+imagenet2012:B/16": 331.40,
        "imagenet21k+imagenet2012:B/16-224": 330.29,
        "sam:B/16": 330.30,
        "augreg:B/16": 391,
    }
    assert {name: find(name).mib for name in listed} == listed


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("augreg:B/61", "augreg:B/16"),
        ("imagenet21:L/16", "imagenet21k:L/16"),
        ("augreg:b/16", "augreg:B/16"),
        ("bit-m:R50x2", "bit-m:R50x1"),
        ("nothing:like", "augreg:B/16"),
    ],
)
def test_a_name_that_is_not_there_is_answered_with_the_nearest(name, near):
    with pytest.raises(
        UserError, match=rf"no released model '{name}'; did you mean .*{re.escape(near)}.*Groups: augreg,"
    ):
        load(name)


def test_names_are_told_from_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "augreg:B/16",
        "imagenet21k+imagenet2012:B/16-224",
        "bit-m:R50x1",
        "mixer-imagenet1k:L/16",
        "augreg:B",
    ):
        assert is_name(name)
    paths = [
        "gs://bucket/file.npz",
        "https://a.b/c.npz",
        r"C:\models\vit.npz",
        r"c:\models",
        "C:/vit.npz",
        "a/b:c",
        "./a:b",
    ]
    paths += ["/data/augreg:B/16", "vit.npz", "augreg", "augreg:", ":B/16", "a:b:c", ""]
    assert [path for path in paths if is_name(path)] == []
    assert is_name("mine:one")
    (tmp_path / "mine:one").write_text("")
    assert not is_name("mine:one")


# Fetching


def test_a_file_is_fetched_once_into_the_cache(cached, server, capsys):
    content = npz(300_000)
    row = put(server, "a.npz", content)
    place = fetch(row)
    assert place == cached / "a.npz"
    assert place.read_bytes() == content
    assert there(cached) == ["a.npz"]
    assert capsys.readouterr().err == f"downloading mine:a.npz (0 MiB) from {server.address}/vit_models/a.npz\n"
    asked = len(server.log)
    assert asked == 1
    assert fetch(row) == place
    assert len(server.log) == asked


def test_a_fetched_model_is_loaded_by_its_name(server, monkeypatch):
    tensors = numpy_vit.draw_params()
    row = put(server, "tiny.npz", Path(save_npz(server.folder / "source", tensors)).read_bytes())
    monkeypatch.setitem(released.BY_NAME, row.name, row)
    loaded = load(row.name)
    same_bits(flat(loaded), tensors)
    assert loaded.source.path == "mine:tiny.npz"


def test_a_file_of_another_size_is_refused(cached, server):
    content = npz(100_000)
    row = put(server, "p.npz", content)
    for size in (50_000, 200_000):
        assert f"the file there has {len(content):,} bytes; expected " in refused(row._replace(mib=size / 2**20))
    cached.mkdir(parents=True, exist_ok=True)
    (cached / "p.npz").write_bytes(b"x" * 1000)  # put there by hand
    with pytest.raises(UserError, match=r"p.npz has 1,000 bytes; expected about .* MiB. .* remove it and start again"):
        fetch(row)


@pytest.mark.parametrize("why", ["404", "refused"])
def test_what_cannot_be_fetched_says_from_where_and_where_to_put_it(cached, server, monkeypatch, why):
    row = put(server, "q.npz", b"")._replace(path="vit_models/absent.npz")
    address = server.address if why == "404" else "http://127.0.0.1:9"  # discard: nobody listens there
    monkeypatch.setenv("VIT_JAX_WEIGHTS", address)
    message = refused(row)
    place = cached / "absent.npz"
    assert f"could not be fetched from {address}/vit_models/absent.npz: " in message
    assert message.endswith(f"or download the file elsewhere and put it at {place}")
    place.write_bytes(npz(1000))
    assert fetch(row._replace(mib=len(npz(1000)) / 2**20)) == place  # as it said


def test_a_folder_will_do_for_a_mirror(tmp_path, server, monkeypatch):
    content = npz(200_000)
    row = put(server, "f.npz", content)
    monkeypatch.setenv("VIT_JAX_WEIGHTS", str(server.folder))
    assert fetch(row).read_bytes() == content
    assert fetch(row, tmp_path / "elsewhere") == tmp_path / "elsewhere" / "vit_models" / "f.npz"
    assert server.log == []
    with pytest.raises(UserError, match=r"/absent.npz: .*No such file"):
        fetch(row._replace(path="vit_models/absent.npz"))
    with pytest.raises(UserError, match=r"the file there has .* bytes; expected"):
        fetch(row._replace(mib=1), tmp_path / "third")


def test_the_cache_is_in_the_users_home_if_nothing_else_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert released.cache_folder() == tmp_path / ".cache" / "vit_jax" / "released"
