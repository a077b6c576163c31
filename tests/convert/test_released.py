"""The table of released weights, and fetching them: from a server of this machine's own, which can break down halfway."""

import http.server
import math
import re
import threading
from pathlib import Path

import numpy as np
import numpy_resnet
import numpy_vit
import pytest
from checkpoints import flat, same_bits, save_npz

from vit_jax.convert import released
from vit_jax.convert.load import load
from vit_jax.convert.released import TABLE, Released, fetch, find, is_name
from vit_jax.models import build, variants
from vit_jax.types import UserError

# The table


def test_every_name_and_every_path_stands_once():
    assert len({row.name for row in TABLE}) == len(TABLE) == 37
    assert len({row.path for row in TABLE}) == len(TABLE)
    for row in TABLE:
        assert is_name(row.name)
        assert find(row.name) is row
        assert re.fullmatch(r"(vit_models|mixer_models|bit_models)/[\w.+/-]+\.npz", row.path)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_files_size_is_four_bytes_for_every_parameter(row):
    settings = variants.any_variant(row.variant) | {"num_classes": row.classes}
    if row.representation:
        settings["representation_size"] = settings["width"]
    if settings["name"] == "resnet":  # from a listing of its tensors: tracing 152 layers takes seconds
        width = 64 * settings["width_factor"]
        shapes = numpy_resnet.bit_shapes(settings["depths"], width).values()
        count = sum(math.prod(shape) for shape in shapes) + (32 * width + 1) * row.classes
    else:
        module = build.MODELS[settings.pop("name")](**settings)
        count = build.count_params(build.abstract_params(module, (row.resolution, row.resolution)))
    assert row.mib == pytest.approx(4 * count / 2**20, rel=0.015)


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


class Server:
    """Serves a folder with ranges; keeps a log of (method, path, range); may hang up after some bytes of an answer."""

    def __init__(self, folder):
        self.folder, self.log, self.hang_up_after = folder, [], None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.answer(with_body=False)

            def do_GET(self):
                self.answer(with_body=True)

            def answer(self, *, with_body):
                wanted = self.headers.get("Range")
                outer.log.append((self.command, self.path, wanted))
                file = outer.folder / self.path.lstrip("/")
                if not file.is_file():
                    self.send_error(404)
                    return
                content, start = file.read_bytes(), 0
                size = len(content)
                if match := re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or ""):
                    start, stop = int(match[1]), int(match[2] or size - 1)
                    content = content[start : stop + 1]
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{start + len(content) - 1}/{size}")
                else:
                    self.send_response(200)
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if with_body:
                    left = size if outer.hang_up_after is None else max(outer.hang_up_after - start, 0)
                    self.wfile.write(content[:left])
                    self.close_connection = True

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def bodies(self):
        """Where the answers with a body started."""
        ranges = [wanted for method, _, wanted in self.log if method == "GET"]
        return [int(re.fullmatch(r"bytes=(\d+)-\d*", wanted)[1]) if wanted else 0 for wanted in ranges]

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def server(tmp_path, monkeypatch):
    (tmp_path / "bucket" / "vit_models").mkdir(parents=True)
    server = Server(tmp_path / "bucket")
    monkeypatch.setenv("VIT_JAX_WEIGHTS", server.address)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(released, "CHUNK_BYTES", 2**16)
    yield server
    server.close()


def put(server, name, content):
    """A file on the server, and the row that speaks of it."""
    (server.folder / "vit_models" / name).write_bytes(content)
    return Released(f"mine:{name}", f"vit_models/{name}", len(content) / 2**20, "B/16", 224, 5, False, None)


def noise(size):
    return np.random.default_rng(0).bytes(size)


def test_a_file_is_fetched_once_into_the_cache(tmp_path, server):
    content = noise(300_000)
    row = put(server, "a.npz", content)
    place = fetch(row)
    assert place == tmp_path / "cache" / "vit_jax" / "released" / "vit_models" / "a.npz"
    assert place.read_bytes() == content
    assert [path.name for path in place.parent.iterdir()] == ["a.npz"]
    asked = len(server.log)
    assert asked > 0
    assert fetch(row) == place
    assert len(server.log) == asked


def test_a_fetched_model_is_loaded_by_its_name(server, monkeypatch):
    tensors = numpy_vit.draw_params()
    row = put(server, "tiny.npz", Path(save_npz(server.folder / "source", tensors)).read_bytes())
    monkeypatch.setitem(released.BY_NAME, row.name, row)
    loaded = load(row.name)
    same_bits(flat(loaded), tensors)
    assert loaded.source.path == "mine:tiny.npz"


def test_a_download_goes_on_where_it_stopped(tmp_path, server):
    content = noise(1_000_000)
    row = put(server, "b.npz", content)
    server.hang_up_after = 400_000
    with pytest.raises(
        UserError, match=r"mine:b.npz could not be fetched from http://127.0.0.1:\d+/vit_models/b.npz: "
    ):
        fetch(row)
    place = tmp_path / "cache" / "vit_jax" / "released" / "vit_models" / "b.npz"
    assert not place.exists()
    partial = place.with_name("b.npz.part")
    kept = partial.read_bytes()
    assert 2**16 <= len(kept) <= 400_000
    assert kept == content[: len(kept)]
    server.hang_up_after = None
    server.log.clear()
    assert fetch(row).read_bytes() == content
    assert min(server.bodies()) == len(kept)
    assert not partial.exists()


def test_a_part_longer_than_the_file_is_started_anew(tmp_path, server):
    content = noise(100_000)
    row = put(server, "c.npz", content)
    place = tmp_path / "cache" / "vit_jax" / "released" / "vit_models" / "c.npz"
    place.parent.mkdir(parents=True)
    place.with_name("c.npz.part").write_bytes(b"x" * 100_001)
    assert fetch(row).read_bytes() == content


def test_a_file_of_another_size_is_refused(server):
    row = put(server, "d.npz", noise(100_000))
    for size in (50_000, 200_000):
        with pytest.raises(
            UserError, match=r"d.npz has 100,000 bytes; expected about .* MiB. .* remove it and start again"
        ):
            fetch(row._replace(mib=size / 2**20))


@pytest.mark.parametrize("why", ["404", "refused"])
def test_what_cannot_be_fetched_says_from_where_and_where_to_put_it(tmp_path, server, monkeypatch, why):
    row = put(server, "e.npz", b"")._replace(path="vit_models/absent.npz")
    address = server.address if why == "404" else "http://127.0.0.1:9"  # discard: nobody listens there
    monkeypatch.setenv("VIT_JAX_WEIGHTS", address)
    with pytest.raises(UserError) as caught:
        fetch(row)
    message = str(caught.value)
    place = tmp_path / "cache" / "vit_jax" / "released" / "vit_models" / "absent.npz"
    assert f"could not be fetched from {address}/vit_models/absent.npz: " in message
    assert message.endswith(f"or download the file elsewhere and put it at {place}")
    place.write_bytes(noise(1000))
    assert fetch(row._replace(mib=1000 / 2**20)) == place  # as it said


def test_a_folder_will_do_for_a_mirror(tmp_path, server, monkeypatch):
    content = noise(200_000)
    row = put(server, "f.npz", content)
    monkeypatch.setenv("VIT_JAX_WEIGHTS", str(server.folder))
    assert fetch(row).read_bytes() == content
    assert fetch(row, tmp_path / "elsewhere") == tmp_path / "elsewhere" / "vit_models" / "f.npz"
    assert server.log == []


def test_the_cache_is_in_the_users_home_if_nothing_else_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert released.cache_folder() == tmp_path / ".cache" / "vit_jax" / "released"
