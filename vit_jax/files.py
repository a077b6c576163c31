"""Files of unknown origin: opened only if they are regular files of the expected size; JSON is read in one way.

A named pipe would block for ever, a device or a sparse file would fill the memory, and a damaged JSON file raises one of four
errors. Every room uses this module to read files that it did not write itself.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from typing import IO, Any

from etils import epath

from vit_jax.types import UserError

MAX_JSON_BYTES = 2**26
# A file that occupies less than a hundredth of its length on disk is mostly holes. Smaller sparse files do no harm.
MAX_SPARSENESS = 100
HARMLESS_BYTES = 2**28
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UnreadableFile(OSError):  # noqa: N818  (an OSError, so that code which handles unreadable files handles it too)
    """A file is not regular, is larger than expected, or consists of holes."""


def open_regular(path: str | os.PathLike[str], *, limit: int | None = None) -> IO[bytes]:
    """Opens a file for reading, if it is a regular file.

    Args:
      path: local, or a URL that etils.epath understands; of a URL only the size is checked.
      limit: largest size accepted, bytes; None for any.

    Returns:
      The binary file, unbuffered if it is local.

    Raises:
      UnreadableFile: a pipe, socket, device or folder; more than `limit` bytes; a file that is almost all holes.
      OSError: it cannot be opened.
    """
    name = os.fspath(path)
    if "://" in name:
        _check_size(name, size := epath.Path(name).stat().length, size, limit)
        remote: IO[bytes] = epath.Path(name).open("rb")
        return remote
    descriptor, _ = open_descriptor(name, limit=limit)
    return open(descriptor, "rb", buffering=0)


def open_descriptor(name: str, *, limit: int | None = None, holes: bool = False) -> tuple[int, int]:
    """Opens a local file, if it is a regular file, for callers that use `os.read` or `os.pread`.

    Args:
      name: a local path.
      limit: largest size accepted, bytes; None for any.
      holes: accept even a large file that is almost all holes.

    Returns:
      (descriptor, which the caller closes, and the file's size in bytes).

    Raises:
      UnreadableFile, OSError: see `open_regular`.
    """
    # Non-blocking, because opening a named pipe would otherwise wait for a writer.
    descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableFile(f"{name} is a {_kind(status.st_mode)}; expected a regular file")
        _check_size(name, status.st_size, status.st_size if holes else status.st_blocks * 512, limit)
        return descriptor, status.st_size
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str], *, limit: int | None = None) -> bytes:
    """The content of a file; arguments and errors as in `open_regular`."""
    name = os.fspath(path)
    if "://" in name:
        with open_regular(name, limit=limit) as file:
            return file.read()
    descriptor, size = open_descriptor(name, limit=limit)
    try:
        # Without a file object, reading a photograph takes 14 us; `open` and `read` take 16, open_regular takes 18.
        data = os.read(descriptor, size + 1)
        if len(data) == size:
            return data
        with open(descriptor, "rb", buffering=0, closefd=False) as file:  # it grew, shrank, or has more than 2 GiB
            return data + (file.read() if limit is None else file.read(max(limit - len(data), 0)))
    finally:
        os.close(descriptor)


def read_json_value(path: str | os.PathLike[str], *, advice: str = "download or copy it again") -> Any:
    """Reads the JSON value, of any type, that a file holds.

    Args:
      path: see `open_regular`; UTF-8.
      advice: what the user should do about a damaged file, for the message.

    Raises:
      UserError: the file cannot be read, is larger than MAX_JSON_BYTES, or holds no JSON.
    """
    try:
        return json.loads(read_regular(path, limit=MAX_JSON_BYTES))
    except (ValueError, RecursionError, OSError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"{path} cannot be read as JSON ({reason}); {advice}") from error


def read_json(path: str | os.PathLike[str], *, advice: str = "download or copy it again") -> dict[str, Any]:
    """Reads the JSON object that a file holds; arguments and errors as in `read_json_value`.

    Raises:
      UserError: also if the file holds another type of value.
    """
    value = read_json_value(path, advice=advice)
    if not isinstance(value, Mapping):
        raise UserError(f"{path} holds {type(value).__name__}; expected a JSON object; {advice}")
    return dict(value)


def is_full(error: BaseException | None) -> bool:
    """Whether an error was caused by a full disk, a quota or a limit on file sizes.

    C++ libraries raise errors of their own types, which name the cause only in their text.
    """
    while error is not None:
        if getattr(error, "errno", None) in NO_ROOM or any(os.strerror(number) in str(error) for number in NO_ROOM):
            return True
        error = error.__cause__ or error.__context__
    return False


def _check_size(name: str, size: int, occupied: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise UnreadableFile(f"{name} has {size:,} bytes; expected at most {limit:,}")
    if size > HARMLESS_BYTES and occupied < size / MAX_SPARSENESS:
        raise UnreadableFile(f"{name} has {size:,} bytes, of which {occupied:,} are on disk; expected a whole file")


def _kind(mode: int) -> str:
    kinds = {
        "folder": stat.S_ISDIR,
        "named pipe": stat.S_ISFIFO,
        "socket": stat.S_ISSOCK,
        "device": lambda m: stat.S_ISCHR(m) or stat.S_ISBLK(m),
    }
    return next((kind for kind, is_kind in kinds.items() if is_kind(mode)), "special file")
