"""Tar files by position: their members from the headers alone, and any range of bytes of one.

Python's tarfile does the first too, at thrice the cost, but takes a file that was cut between two members for a whole one.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from etils import epath

from vit_jax.files import open_descriptor

BLOCK = 512
WINDOW = 4096  # bytes fetched at once: a label and the header after it come with the header before them
MAX_EXTENSION = 1 << 20  # bytes of a name or a pax header
MAX_PADDING = 1 << 26  # bytes after the end mark, which programs write as 10 KiB at most
# First bytes of compressed files, and the command that decompresses each.
COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
REGULAR, LINK, OTHER = "file", "link", "other"


class DamagedTar(ValueError):  # noqa: N818 (named for what it says of the file)
    """The file is no whole, uncompressed tar file; the message says where and why."""


class Member(NamedTuple):
    """One member: its name as stored, where its bytes lie, how many, and REGULAR, LINK or OTHER."""

    name: bytes
    offset: int
    size: int
    kind: str


class TarFile:
    """Bytes of a file by position, from any thread: `os.pread` for local files, a lock around the rest (gs://).

    Args:
      path: local, or anything etils.epath reads.

    Raises:
      OSError: it cannot be opened, or is no regular file.
    """

    def __init__(self, path: str):
        self._fd = -1
        self._closing = threading.Lock()
        if "://" in path:
            self._remote = epath.Path(path).open("rb")
            self.size = self._remote.seek(0, os.SEEK_END)
        else:  # holes in it cost nothing until a member in one is read
            self._fd, self.size = open_descriptor(path, holes=True)

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`, fewer where the file ends before."""
        if self._fd == -1:
            with self._closing:
                self._remote.seek(offset)
                return bytes(self._remote.read(count))
        data = os.pread(self._fd, count, offset)
        while len(data) < count and (more := os.pread(self._fd, count - len(data), offset + len(data))):
            data += more
        return data

    def close(self) -> None:
        """Frees the descriptor. Safe to call twice."""
        with self._closing:
            fd, self._fd = self._fd, -2
            if fd >= 0:
                os.close(fd)
            elif fd == -1:
                self._remote.close()

    def __del__(self) -> None:
        if hasattr(self, "_closing") and (self._fd >= 0 or hasattr(self, "_remote")):
            self.close()


def iter_members(file: TarFile) -> Iterator[Member]:
    """The members of a tar file, in order: V7, ustar, GNU (long names, large sizes) and pax headers are understood.

    Raises:
      DamagedTar: compressed, truncated, with a damaged header, without its end mark (two blocks of zeros, so a file cut
        between two members is found too), or with more data after it (`cat a.tar b.tar`).
    """
    window, begin = b"", 0
    offset, long_name, records = 0, b"", dict[bytes, bytes]()
    while True:
        header = window[offset - begin : offset - begin + BLOCK]
        if len(header) < BLOCK:
            window, begin = file.read(offset, WINDOW), offset
            header = window[:BLOCK]
        if len(header) < BLOCK:
            if offset == 0:
                raise _explain_start(header)
            raise DamagedTar(f"truncated: it ends at byte {file.size:,}, without a tar file's end mark")
        if not header[0] and not header.strip(b"\0"):
            return _check_rest(file, offset)
        _check_header(header, offset)
        size, kind = _number(header[124:136], offset), header[156:157]
        body, offset = offset + BLOCK, offset + BLOCK + size + -size % BLOCK
        if kind in b"123456":  # links, devices and folders have no bytes, whatever their header says
            offset = body
        if records and b"size" in records and kind not in b"xg":
            size = int(records[b"size"])
            offset = body + size + -size % BLOCK
        if body + size > file.size and offset != body:
            name = long_name or _name(header)
            raise DamagedTar(f"truncated: it ends at byte {file.size:,}, inside {_show(name)} (to {body + size:,})")
        if kind in b"LKxg" and size > MAX_EXTENSION:
            raise DamagedTar(f"damaged: the header at byte {body - BLOCK:,} wants {size:,} bytes for a name")
        if kind == b"L":
            long_name = file.read(body, size).split(b"\0", 1)[0]
        elif kind == b"x":
            records = _parse_pax(file.read(body, size), body)
        elif kind not in b"Kg":
            name = records.get(b"path") or long_name or _name(header)
            yield Member(name, body, size, _kind(kind, name, records))
            long_name, records = b"", {}


def _kind(kind: bytes, name: bytes, records: dict[bytes, bytes]) -> str:
    if kind in b"0\0" and not records and name[-1:] != b"/":
        return REGULAR
    sparse = kind == b"S" or any(key.startswith(b"GNU.sparse.") for key in records)
    if kind in b"3456" or sparse or name.endswith(b"/"):
        return OTHER
    return LINK if kind in b"12" else REGULAR  # an unknown type counts as a file, as POSIX defines


def _check_rest(file: TarFile, offset: int) -> None:
    """Checks that only padding follows the end mark."""
    if file.size - offset > MAX_PADDING:
        raise DamagedTar(f"ends at byte {offset:,} of {file.size:,}: is this file filled up with zeros?")
    while rest := file.read(offset, 1 << 20):
        if rest.strip(b"\0"):
            raise DamagedTar(
                f"more data after the end mark at byte {offset:,}: several tar files in one? Unpack with "
                "`tar --ignore-zeros -xf` and pack again"
            )
        offset += len(rest)


def _check_header(header: bytes, offset: int) -> None:
    # The sum of the bytes, its own field counted as spaces. Adler-32's low half is one more than a sum modulo 65521, at a
    # tenth of the time of Python's sum.
    total = (zlib.adler32(header) & 0xFFFF) - 1 - sum(header[148:156]) + 8 * 32
    try:
        if (_number(header[148:156], offset) - total) % 65521 == 0:
            return
    except DamagedTar:
        pass
    if offset == 0:
        raise _explain_start(header)
    raise DamagedTar(f"damaged: no header of a member at byte {offset:,}")


def _explain_start(header: bytes) -> DamagedTar:
    """The error for a file that does not begin as a tar file does."""
    for start, command in COMPRESSED.items():
        if header.startswith(start):
            return DamagedTar(
                f"compressed, and the middle of a compressed file cannot be reached: run `{command}` on it (images are "
                "compressed already)"
            )
    return DamagedTar(f"no tar file: it begins with {header[:16]!r}" if header else "empty (0 bytes)")


def _number(field: bytes, offset: int) -> int:
    """Octal text, or binary where the first byte says so (GNU, for what octal has no room for)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        number = int(field.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        number = -1
    if number < 0:
        raise DamagedTar(f"damaged: the header at byte {offset:,} has the number {field!r}")
    return number


def _name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[345] and header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _parse_pax(data: bytes, offset: int) -> dict[bytes, bytes]:
    """The records `length key=value\\n` of a pax header."""
    records: dict[bytes, bytes] = {}
    while data.strip(b"\0"):
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not len(length) + 2 < int(length) <= len(data):
            raise DamagedTar(f"damaged: the pax header at byte {offset:,} cannot be read")
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        records[key] = value
        data = data[int(length) :]
    if not records.get(b"size", b"0").isdigit():
        raise DamagedTar(f"damaged: the pax header at byte {offset:,} gives the size {records[b'size']!r}")
    return records


def _show(name: bytes) -> str:
    return name.decode("utf-8", "replace")
