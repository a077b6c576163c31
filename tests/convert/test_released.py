"""The table of released weights, and fetching them: from a server of this machine's own, which can break down halfway."""

import concurrent.futures
import http.server
import io
import math
import re
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import numpy_resnet
import numpy_vit
import pytest
from checkpoints import flat, same_bits, save_npz

from vit_jax.convert import download, released
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
    """Serves a folder with ranges, and keeps a log of (method, path, range).

    Args:
      folder: what it serves.

    It misbehaves as it is told to: `statuses` are answered first, one a request; an answer may hang up after that many bytes of
    the file, or stall there; `page` is sent in place of the file; `shift` moves the part that it says it sends, and `more` is
    sent behind it; `changes` are the contents of later requests.
    """

    def __init__(self, folder):
        self.folder, self.log = folder, []
        self.statuses, self.changes = [], []
        self.hang_up_after = self.stall_after = self.page = self.tag = None
        self.shift, self.more = 0, b""
        self.stalled, self.going_on = threading.Event(), threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # a client that gave up
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def answer(self, request):
        wanted = request.headers.get("Range")
        self.log.append((request.command, request.path, wanted))
        file = self.folder / request.path.lstrip("/")
        if self.statuses or not file.is_file():
            request.send_error(self.statuses.pop(0) if self.statuses else 404)
            return
        content = file.read_bytes() if self.page is None else self.page
        if self.changes:
            file.write_bytes(self.changes.pop(0))
        size, start = len(content), 0
        tag = self.tag and f'"{zlib.crc32(content)}"'
        changed = request.headers.get("If-Range") not in (None, tag)
        if (match := re.fullmatch(r"bytes=(\d+)-", wanted or "")) and not changed and self.page is None:
            start = int(match[1])
            if start >= size:
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{size}")
                request.send_header("Content-Length", "0")
                request.end_headers()
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start + self.shift}-{size - 1}/{size}")
        else:
            request.send_response(200)
        if tag:
            request.send_header("ETag", tag)
        body = content[start:] + (self.more if start else b"")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if self.stall_after is not None:
            request.wfile.write(body[: max(self.stall_after - start, 0)])
            self.stalled.set()
            self.going_on.wait(10)
            return
        left = len(body) if self.hang_up_after is None else max(self.hang_up_after - start, 0)
        request.wfile.write(body[:left])
        request.close_connection = True

    def starts(self):
        """Where the answers were asked to start."""
        return [int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0 for _, _, wanted in self.log]

    def close(self):
        self.going_on.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def server(tmp_path, monkeypatch):
    (tmp_path / "bucket" / "vit_models").mkdir(parents=True)
    server = Server(tmp_path / "bucket")
    monkeypatch.setenv("VIT_JAX_WEIGHTS", server.address)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "CHUNK_BYTES", 2**16)
    monkeypatch.setattr(download, "WAIT_S", 0.01)
    yield server
    server.close()


def put(server, name, content):
    """A file on the server, and the row that speaks of it."""
    (server.folder / "vit_models" / name).write_bytes(content)
    return Released(f"mine:{name}", f"vit_models/{name}", len(content) / 2**20, "B/16", 224, 5, False, None)


def npz(size, seed=0):
    """An npz file's bytes, incompressible."""
    held = io.BytesIO()
    np.savez(held, a=np.frombuffer(np.random.default_rng(seed).bytes(size), np.uint8))
    return held.getvalue()


@pytest.fixture
def cached(tmp_path):
    return tmp_path / "cache" / "vit_jax" / "released" / "vit_models"


def there(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(row):
    """What is said of a file that cannot be fetched."""
    with pytest.raises(UserError) as told:
        fetch(row)
    message = str(told.value)
    assert message.startswith(f"{row.name} could not be fetched from http://127.0.0.1:")
    return message


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


def test_a_download_that_is_cut_off_stays_apart_and_goes_on_where_it_stopped(cached, server):
    content = npz(1_000_000)
    row = put(server, "b.npz", content)
    server.hang_up_after = 400_000
    assert f": it ended after 400,000 of {len(content):,} bytes\nStart the same command again to resume; " in refused(
        row
    )
    assert there(cached) == ["b.npz.part"]
    assert (cached / "b.npz.part").read_bytes() == content[:400_000]
    server.hang_up_after = None
    server.log.clear()
    assert fetch(row).read_bytes() == content
    assert server.starts() == [400_000]
    assert there(cached) == ["b.npz"]


def test_a_part_longer_than_the_file_is_started_anew(cached, server):
    content = npz(100_000)
    row = put(server, "c.npz", content)
    cached.mkdir(parents=True)
    for size in (len(content) + 1, len(content)):
        (cached / "c.npz.part").write_bytes(b"x" * size)
        assert fetch(row).read_bytes() == content
        assert there(cached) == ["c.npz"]
        (cached / "c.npz").unlink()


def test_an_error_page_is_not_taken_for_the_file(cached, server):
    content = npz(200_000)
    row = put(server, "d.npz", content)
    cached.mkdir(parents=True)
    (cached / "d.npz.part").write_bytes(content[:50_000])
    server.page = b"<html>Please log in to this network</html>"
    assert "the file there has 42 bytes; expected 198," in refused(row)
    assert (cached / "d.npz.part").read_bytes() == content[:50_000]
    server.page = None
    assert fetch(row).read_bytes() == content


def test_a_file_of_the_right_size_that_is_no_npz_is_not_stored(cached, server):
    row = put(server, "e.npz", b"<html>" * 20_000)
    assert "the file there is no npz file (File is not a zip file)" in refused(row)
    damaged = bytearray(npz(100_000))
    damaged[50_000] ^= 1
    row = put(server, "f.npz", bytes(damaged))
    assert "the file there is damaged: the checksum of a.npy is wrong" in refused(row)
    assert there(cached) == []


def test_a_part_that_was_not_asked_for_is_not_appended(cached, server):
    content = npz(200_000)
    row = put(server, "g.npz", content)
    cached.mkdir(parents=True)
    (cached / "g.npz.part").write_bytes(content[:50_000])
    server.shift = 7
    assert fetch(row).read_bytes() == content
    assert server.starts() == [50_000, 0]


def test_more_than_was_announced_is_not_kept(cached, server):
    content = npz(200_000)
    row = put(server, "h.npz", content)
    cached.mkdir(parents=True)
    (cached / "h.npz.part").write_bytes(content[:50_000])
    server.more = b"x"
    assert fetch(row).read_bytes() == content
    assert server.starts() == [50_000, 0]


@pytest.mark.parametrize("tag", [None, True])
def test_a_file_that_changes_in_the_middle_is_fetched_whole(cached, server, tag, capsys):
    old, new = npz(300_000), npz(300_000, seed=1)
    row = put(server, "i.npz", old)
    server.tag, server.hang_up_after, server.changes = tag, 100_000, [new]

    def stop_hanging_up(seconds):
        server.hang_up_after = None

    download.time.sleep, real = stop_hanging_up, download.time.sleep
    try:
        assert fetch(row).read_bytes() == new
    finally:
        download.time.sleep = real
    assert there(cached) == ["i.npz"]
    assert ("the file on the server has changed" in capsys.readouterr().err) == (tag is None)


def test_a_file_of_another_size_after_a_break_is_started_anew(server):
    old, new = npz(300_000), npz(301_000)
    row = put(server, "j.npz", old)
    server.hang_up_after, server.changes = 100_000, [new]

    class Sleep:
        def __call__(self, seconds):
            server.hang_up_after = None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download.time, "sleep", Sleep())
        assert fetch(row).read_bytes() == new


@pytest.mark.parametrize("after", [None, 0, 100_000])
def test_a_server_that_stalls_is_given_up(cached, server, monkeypatch, after, capsys):
    content = npz(200_000)
    row = put(server, "k.npz", content)
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    server.stall_after = after
    if after is None:
        server.answer = lambda request: server.going_on.wait(10)
    began = time.monotonic()
    assert "the server sent nothing for 0 s" in refused(row)
    assert time.monotonic() - began < 5
    assert "trying again in 0 s" in capsys.readouterr().err
    assert there(cached) == (["k.npz.part"] if after else [])


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server, capsys):
    content = npz(100_000)
    row = put(server, "l.npz", content)
    server.statuses = [500, 503, 429]
    assert fetch(row).read_bytes() == content
    assert len(server.log) == 4
    assert capsys.readouterr().err.count("trying again") == 3
    server.log.clear()
    server.statuses = [503] * 9
    assert "HTTP Error 503: Service Unavailable" in refused(put(server, "m.npz", content))
    assert len(server.log) == 4
    server.log.clear()
    server.statuses = []
    assert "HTTP Error 404: " in refused(row._replace(name="mine:n", path="vit_models/n.npz"))
    assert len(server.log) == 1


def test_two_at_once_fetch_one_file_once(cached, server, capsys):
    content = npz(400_000)
    row = put(server, "o.npz", content)
    server.stall_after = 100_000
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        found = [pool.submit(fetch, row) for _ in range(3)]
        while "waiting for that" not in (said := capsys.readouterr().err):
            assert not any(f.done() for f in found), said
            time.sleep(0.01)
        assert server.stalled.wait(10)
        server.stall_after = None
        server.going_on.set()  # the first is cut off, and goes on
        assert {f.result(timeout=20) for f in found} == {cached / "o.npz"}
    assert (cached / "o.npz").read_bytes() == content
    assert there(cached) == ["o.npz"]
    assert server.starts() == [0, 100_000]


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
