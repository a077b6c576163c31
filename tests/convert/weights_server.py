"""A server of released weights on this machine, which can break down halfway; for the tests of this folder."""

import http.server
import io
import re
import threading
import zlib

import numpy as np
import pytest

from vit_jax.convert.released import Released, fetch
from vit_jax.types import UserError


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


def put(server, name, content):
    """A file on the server, and the row that speaks of it."""
    (server.folder / "vit_models" / name).write_bytes(content)
    return Released(f"mine:{name}", f"vit_models/{name}", len(content) / 2**20, "B/16", 224, 5, False, None)


def npz(size, seed=0):
    """An npz file's bytes, incompressible."""
    held = io.BytesIO()
    np.savez(held, a=np.frombuffer(np.random.default_rng(seed).bytes(size), np.uint8))
    return held.getvalue()


def there(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(row):
    """What is said of a file that cannot be fetched."""
    with pytest.raises(UserError) as told:
        fetch(row)
    message = str(told.value)
    assert message.startswith(f"{row.name} could not be fetched from http://127.0.0.1:")
    return message
