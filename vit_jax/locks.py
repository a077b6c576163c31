"""One process per folder: a lock that the kernel releases whenever and however its process ends.

A run locks its workdir, and a sweep's driver locks the sweep's folder, from before the first look at its files until the
last file is written. The lock is on a file, not on the folder itself, because network file systems lock only files.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from vit_jax.process import NO_RIGHT, before_end
from vit_jax.types import UserError

LOCK_FILE = ".lock"
NO_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EBADF, errno.EINVAL)
_held: set[str] = set()  # real paths of the files that this process has locked


@contextlib.contextmanager
def hold(folder: Path, *, work: str = "used", wait: bool = False) -> Iterator[None]:
    """Locks a folder for this process inside the `with`, and removes the lock file afterwards. A process may nest its own locks.

    If the file system cannot lock, one notice says so and nothing is locked. A folder that is not writable needs no lock,
    because then nobody writes to it.

    Args:
      folder: created if missing, and removed again if it stays empty.
      work: how messages describe the use of the folder.
      wait: wait for another process to end instead of refusing.

    Raises:
      UserError: another process holds the lock, or the folder cannot be created.
    """
    file = folder / LOCK_FILE
    key = os.path.realpath(file)
    if key in _held:
        yield
        return
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        descriptor = _lock(file, work, wait)
    except OSError as error:
        raise UserError(f"workdir {folder} cannot be written to: {error}; give another --workdir") from error
    if descriptor is None:
        yield
        return

    def let_go(*_: object) -> None:
        _held.discard(key)
        with contextlib.suppress(OSError):
            file.unlink()
        os.close(descriptor)
        with contextlib.suppress(OSError):  # a folder that is not empty stays
            for place in made:
                place.rmdir()

    _held.add(key)
    with before_end(let_go):
        try:
            yield
        finally:
            let_go()


def _lock(file: Path, work: str, wait: bool) -> int | None:
    """The descriptor of the locked file; None if locking is impossible."""
    announced = False
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor, writable = _open(file)
        except FileNotFoundError:  # the process that made the folder has just removed it
            continue
        if descriptor is None:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait and announced else fcntl.LOCK_NB))
            if not _is_named(descriptor, file):  # its last holder has removed it
                os.close(descriptor)
                continue
            if writable:
                with contextlib.suppress(OSError):  # a full disk: the lock counts, not the text in it
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, about_us().encode())
            return descriptor
        except BlockingIOError:
            holder = os.pread(descriptor, 500, 0).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            if not wait:
                raise UserError(
                    f"workdir {file.parent} is {work} by {holder}; wait for it, stop it, or give another --workdir"
                ) from None
            print(f"{file.parent} is {work} by {holder}; waiting for its end", flush=True)
            announced = True
        except OSError as error:
            os.close(descriptor)
            if error.errno not in NO_LOCKS:
                raise
            logging.getLogger(__name__).warning(
                "%s: this file system has no locks (%s); start no second process on it", file.parent, error.strerror
            )
            return None


def _open(file: Path) -> tuple[int | None, bool]:
    """(descriptor, whether it is writable); no descriptor if the file can be neither created nor read."""
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o644), True
    except OSError as error:
        if error.errno not in NO_RIGHT:
            raise
    try:
        return os.open(file, os.O_RDONLY | os.O_NONBLOCK), False
    except OSError:
        return None, False


def _is_named(descriptor: int, file: Path) -> bool:
    """Whether a descriptor belongs to the file that has the name now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except FileNotFoundError:
        return False


def about_us() -> str:
    now = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()}, since {now}\n"
