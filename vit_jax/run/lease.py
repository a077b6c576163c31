"""One process per URL: a lease in place of the lock that a store does not have.

The holder writes `.lease` beside the run's files, rewrites it every BEAT_S, and removes it at its end. A lease that stays the
same for EXPIRES_S has no holder any more. Clocks are not compared, because those of two machines differ. Stores have no atomic
test-and-set that all schemes share, so this is best effort: if two processes start within the same second, both may begin, and
the first finds out before it writes its next checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vit_jax.locks import about_us
from vit_jax.remote import Remote, explained
from vit_jax.types import UserError, printable

LEASE = ".lease"
BEAT_S = 15.0
EXPIRES_S = 60.0
POLL_S = 1.0


class Lease:
    """The lease of a URL; see `hold_lease`.

    Args:
      remote: the folder.
      place: a local folder that this process has locked. A lease that was taken with the same lock has no holder any more.
    """

    def __init__(self, remote: Remote, place: Path):
        found = place.stat()
        self._remote = remote
        self._ours: dict[str, Any] = {
            "id": uuid.uuid4().hex,
            "who": about_us().strip(),
            "place": f"{socket.gethostname()} {place} {found.st_dev}:{found.st_ino}",
        }
        self._beat = 0
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._keep, daemon=True)

    def _read(self) -> dict[str, Any] | None:
        content = self._remote.read(LEASE)
        if content is None:
            return None
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        return found if isinstance(found, dict) else {"who": "another process"}

    def _write(self) -> None:
        self._beat += 1
        self._remote.replace(LEASE, json.dumps({**self._ours, "beat": self._beat}).encode())

    def take(self, *, wait: bool) -> None:
        """Takes the lease, once its holder has let go of it or let it expire.

        Raises:
          UserError: its holder lives, and `wait` is false.
        """
        found = self._read()
        while found is not None and found.get("place") != self._ours["place"]:
            who = printable(str(found.get("who")))[:500]
            print(
                f"{self._remote.url} was in use by {who}; watching for {EXPIRES_S:.0f} s whether it still is",
                flush=True,
            )
            now = self._watch(found)
            if now == found:
                break
            if now is not None and not wait:
                raise UserError(
                    f"workdir {self._remote.url} is used by {who}; wait for it, stop it, or give another --workdir"
                )
            found = now
        self._write()
        self._beating.start()

    def _watch(self, found: dict[str, Any]) -> dict[str, Any] | None:
        """The lease as soon as it changes, or after EXPIRES_S."""
        deadline = time.monotonic() + EXPIRES_S
        while time.monotonic() < deadline:
            time.sleep(min(POLL_S, EXPIRES_S / 4))
            if (now := self._read()) != found:
                return now
        return found

    def _keep(self) -> None:
        while not self._ended.wait(BEAT_S):
            with contextlib.suppress(Exception):  # a beat may fail; the next checkpoint says why
                if (self._read() or {}).get("id") != self._ours["id"]:
                    return
                self._write()
            self._remote.forget()  # the connection may be idle for too long until the next beat

    def check(self) -> None:
        """Checks that the lease is still this process's.

        Raises:
          UserError: another process has taken it, or it was removed.
        """
        found = self._read()
        if found is None or found.get("id") != self._ours["id"]:
            now = f"is now used by {printable(str(found.get('who')))[:500]}" if found else "was removed or moved"
            raise UserError(f"workdir {self._remote.url} {now}; this process stops and writes nothing more to it")

    def end(self) -> None:
        """Removes the lease if it is still this process's."""
        self._ended.set()
        self._beating.join()
        if (self._read() or {}).get("id") == self._ours["id"]:
            self._remote.remove(LEASE)


@contextlib.contextmanager
def hold_lease(remote: Remote, place: Path, *, wait: bool) -> Iterator[Lease]:
    """Holds the lease of a URL inside the `with`.

    Args:
      remote: the folder.
      place: see `Lease`.
      wait: wait for another process to end instead of refusing.

    Raises:
      UserError: another process holds it, or the URL cannot be written.
    """
    lease = Lease(remote, place)
    with explained(remote.url, "written"):
        lease.take(wait=wait)
    try:
        yield lease
    finally:
        with contextlib.suppress(Exception):  # it expires
            lease.end()
