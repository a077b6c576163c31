"""Downloads a file so that only a complete file ever has its final name.

Servers break off, stall, answer with an error page or with the wrong part, and files change during a download. Until size and
checksums are verified, a file is called NAME.part, and a download resumes from it. NAME.part is also the lock that lets one
process download while others wait.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from vit_jax.files import open_regular

CHUNK_BYTES = 2**20
TIMEOUT_S = 30.0  # longest wait for the next byte
TRIES = 4  # consecutive tries that may bring nothing
WAIT_S = 2.0  # before the second try; doubles each time
SHOW_EVERY_S = 20.0  # between progress lines if there is no terminal for a bar
BUSY = (408, 425, 429, 500, 502, 503, 504)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class WrongAnswer(OSError):  # noqa: N818  (the fault lies in the server's answer)
    """The server's answer does not continue the existing part, or is not the expected kind of file."""


def download_npz(url: str, place: Path, *, sizes: tuple[int, int], title: str) -> None:
    """Downloads an npz file; an interrupted download resumes.

    Args:
      url: http(s), anything else that etils.epath reads, or a local path.
      place: where the file goes; its folder exists.
      sizes: least and greatest number of bytes that it may have.
      title: the file's name in progress messages.

    Raises:
      OSError: the download failed. NAME.part stays where it can be resumed.
    """
    with _claim(place, title) as partial:
        if partial is None:
            return
        resumed = _fill(url, partial, sizes, title)
        try:
            _check_npz(partial.name)
        except WrongAnswer:
            partial.truncate(0)
            if not resumed:
                raise
            _say(f"{title}: the file on the server has changed; starting over")
            _fill(url, partial, sizes, title)
            _check_npz(partial.name)
        os.replace(partial.name, place)


@contextlib.contextmanager
def _claim(place: Path, title: str) -> Iterator[IO[bytes] | None]:
    """Opens NAME.part and locks it for this process; None if another process has completed the file meanwhile."""
    name = place.with_name(f"{place.name}.part")
    has_waited = False
    while True:
        with name.open("ab") as partial:
            try:
                fcntl.flock(partial, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not has_waited:
                    _say(f"{title}: another process is downloading it; waiting for that")
                has_waited = True
                fcntl.flock(partial, fcntl.LOCK_EX)
            except OSError:
                pass  # a file system without locks: checking the complete file still detects mixed parts
            if os.path.exists(name) and os.path.samestat(os.fstat(partial.fileno()), os.stat(name)):
                try:
                    yield None if place.exists() else partial
                finally:
                    if os.path.exists(name) and not os.stat(name).st_size:
                        os.unlink(name)
                return
        if place.exists():  # the locked NAME.part was renamed to it
            yield None
            return


def _fill(url: str, partial: IO[bytes], sizes: tuple[int, int], title: str) -> bool:
    """Appends to the partial file until it has the server's length; returns whether it arrived in more than one part."""
    with _Progress(title, url, sizes[1]) as progress:
        if not url.startswith(("http://", "https://")):
            _copy(url, partial, sizes, progress)
            return False
        seen: dict[str, Any] = {}
        failures = wrong = 0
        while True:
            before = _size(partial)
            try:
                _receive(url, partial, sizes, seen, progress)
                return "resumed" in seen
            except (OSError, http.client.HTTPException) as error:
                partial.flush()
                failures = 1 if _size(partial) > before else failures + 1
                if isinstance(error, WrongAnswer):
                    partial.truncate(0)
                    failures = wrong = wrong + 1
                code = error.code if isinstance(error, urllib.error.HTTPError) else None
                final = code not in (None, *BUSY) or getattr(error, "errno", None) in NO_ROOM
                if final or failures >= (TRIES if code else TRIES // 2):
                    raise
                wait = WAIT_S * 2 ** (failures - 1)
                _say(f"{title}: {describe(error)}; trying again in {wait:.0f} s")
                time.sleep(wait)


def _copy(url: str, partial: IO[bytes], sizes: tuple[int, int], progress: _Progress) -> None:
    """Copies a local file, or one from a store that etils.epath knows."""
    partial.truncate(0)
    with open_regular(url) as source:
        while chunk := source.read(CHUNK_BYTES):
            partial.write(chunk)
            progress.show(partial.tell(), None)
    partial.flush()
    if not sizes[0] <= _size(partial) <= sizes[1]:
        raise WrongAnswer(_other_size(_size(partial), sizes))


def _receive(url: str, partial: IO[bytes], sizes: tuple[int, int], seen: dict[str, Any], progress: _Progress) -> None:
    """Requests the missing bytes once and appends them. `seen` holds the file's ETag from earlier answers."""
    done = _size(partial)
    headers = {"Range": f"bytes={done}-"} if done else {}
    if done and seen.get("tag"):
        headers["If-Range"] = seen["tag"]  # asks for the whole file if it has changed
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{done}":
            seen["resumed"] = True
            return  # nothing is missing
        raise WrongAnswer(f"the server has no byte {done:,}") if error.code == 416 else error from error
    with answer:
        total, start = _announced(answer)
        if not sizes[0] <= total <= sizes[1]:
            raise OSError(_other_size(total, sizes))
        if start not in (0, done):
            raise WrongAnswer(
                f"the server answered with bytes from {start:,} on, and was asked for those from {done:,} on"
            )
        if start:
            seen["resumed"] = True
        else:
            partial.truncate(done := 0)
        tag = answer.headers.get("ETag", "")
        seen["tag"] = tag if tag.startswith('"') else answer.headers.get("Last-Modified")
        while chunk := answer.read(CHUNK_BYTES):
            partial.write(chunk)
            done += len(chunk)
            progress.show(done, total)
    partial.flush()
    if done > total:
        raise WrongAnswer(f"{done:,} bytes came, and {total:,} were announced")
    if done < total:
        raise OSError(f"it ended after {done:,} of {total:,} bytes")


def _announced(answer: Any) -> tuple[int, int]:
    """(size of the whole file, start of the answer's part) from an answer's headers."""
    part, length = answer.headers.get("Content-Range", ""), answer.headers.get("Content-Length", "")
    if answer.status == 206 and (match := re.fullmatch(r"bytes (\d+)-\d+/(\d+)", part)):
        return int(match[2]), int(match[1])
    if answer.status == 200 and length.isdecimal():
        return int(length), 0
    raise OSError("the server does not say how large the file is")


def _size(file: IO[bytes]) -> int:
    file.flush()
    return os.fstat(file.fileno()).st_size


def _other_size(found: int, sizes: tuple[int, int]) -> str:
    return f"the file there has {found:,} bytes; expected {sizes[0]:,} to {sizes[1]:,}"


def _check_npz(name: str) -> None:
    """Raises WrongAnswer unless every member of a zip is present and matches its checksum."""
    try:
        with zipfile.ZipFile(name) as archive:
            bad = archive.testzip()
    except Exception as error:  # a damaged zip raises a dozen types
        raise WrongAnswer(f"the file there is no npz file ({error})") from error
    if bad is not None:
        raise WrongAnswer(f"the file there is damaged: the checksum of {bad} is wrong")


def describe(error: BaseException) -> str:
    """Formats an error as a clause of a message."""
    reason = getattr(error, "reason", None)
    error = reason if isinstance(reason, BaseException) else error
    if isinstance(error, TimeoutError):
        return f"the server sent nothing for {TIMEOUT_S:.0f} s"
    return str(error) or type(error).__name__


def _say(text: str) -> None:
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)


class _Progress:
    """Shows progress on standard error: on a terminal a bar, visible before the server answers; in a log a line at the start and
    one every SHOW_EVERY_S seconds."""

    def __init__(self, title: str, url: str, most: int):
        self._title, self._bar, self._last = title, None, time.monotonic()
        if sys.stderr is not None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
            from rich.progress import TransferSpeedColumn as SpeedColumn

            columns = (
                TextColumn(title, markup=False),
                BarColumn(),
                DownloadColumn(),
                SpeedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("", total=most)
        else:
            _say(f"downloading {title} from {url}")

    def __enter__(self) -> _Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, done: int, total: int | None) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)
        elif time.monotonic() - self._last > SHOW_EVERY_S:
            self._last = time.monotonic()
            _say(f"{self._title}: {done / 2**20:,.0f} of {(total or 0) / 2**20:,.0f} MiB")
