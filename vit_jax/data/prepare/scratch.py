"""A folder that another process never sees half written: written beside its place, and moved there at the end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator

from etils import epath

from vit_jax.files import is_full
from vit_jax.types import UserError

PARTIAL = ".partial"
LOCK = ".lock"


@contextlib.contextmanager
def scratch_beside(target: epath.Path) -> Iterator[epath.Path]:
    """A folder beside the target that becomes the target at the end: an interrupted run never looks packed. Files that an
    earlier, killed process left there are removed.

    Raises:
      UserError: another process packs into the same target, or there is no room or no permission.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            scratch = _claim(target, held)
            try:
                yield scratch
                if target.exists():
                    raise UserError(f"--to={target} was made by someone else meanwhile; remove it, and start again")
                scratch.rename(target)
                (target / LOCK).unlink(missing_ok=True)
            except BaseException:
                scratch.rmtree(missing_ok=True)
                raise
    except (OSError, RuntimeError) as error:
        if is_full(error):
            raise UserError(
                f"no room to pack into {target} ({error}); what was written is removed: free some, or give another --to"
            ) from error
        if isinstance(error, PermissionError):
            raise UserError(f"cannot write {target} ({error}); give another --to") from error
        raise


def _claim(target: epath.Path, held: contextlib.ExitStack) -> epath.Path:
    """Makes the folder beside the target, empty and locked against other processes for as long as `held` is."""
    unlocked = target.parent / f".{target.name}.{secrets.token_hex(4)}{PARTIAL}"
    if "://" in str(target):
        unlocked.mkdir()
        return unlocked
    scratch = target.parent / f".{target.name}{PARTIAL}"
    scratch.mkdir(exist_ok=True)
    lock = scratch / LOCK
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    held.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another process is packing into {target}; wait for it, or give another --to") from None
    except OSError:  # this file system knows no locks
        unlocked.mkdir()
        return unlocked
    # The process that held the lock before has moved the folder, or removed it.
    if not lock.exists() or not os.path.samestat(os.fstat(descriptor), os.stat(lock)):
        raise UserError(f"another process was packing into {target} just now; use it if it is there, else start again")
    for left in scratch.iterdir():
        if left.name != LOCK:
            left.unlink()
    return scratch
