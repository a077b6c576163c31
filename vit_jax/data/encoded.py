"""What the bytes of an encoded image say of it before any pixel is decoded: its size, a PNG's chunks, a JPEG's segments."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

# Pillow's own warning level. A larger picture is refused before its pixels are allocated.
MAX_PIXELS = 89_478_485


class CorruptImage(ValueError):  # noqa: N818 (named for what it says of the image)
    """The bytes are not a whole picture of a kind that is read here. The loader counts it and goes on."""


def check_size(height: int, width: int) -> None:
    """Raises CorruptImage for a picture of no pixels, or of more than MAX_PIXELS."""
    if height < 1 or width < 1:
        raise CorruptImage(f"the image is {height} x {width} pixels")
    if height * width > MAX_PIXELS:
        raise CorruptImage(f"the image is {height} x {width}, more than the limit of {MAX_PIXELS} pixels")


def walk_jpeg(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields (kind, start of the content) of a JPEG's segments, up to and with its first scan."""
    position, kind = 2, 0
    while kind != 0xDA and position < len(data) - 4:
        kind = data[position + 1]
        if kind == 0xFF:  # a marker may be preceded by any number of these
            position += 1
        else:
            yield kind, position + 4
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")


def is_plain_png(data: bytes) -> bool:
    """Walks the PNG's chunks: False for one that Pillow should read, CorruptImage for one that is damaged."""
    position, plain = 8, True
    while True:
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        end = position + 12 + length
        if end > len(data):
            raise CorruptImage("the PNG is truncated")
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise CorruptImage(f"the PNG is damaged: the checksum of its {kind!r} chunk is wrong")
        if kind == b"IHDR" and length == 13:
            body = data[position + 8 : end - 4]
            check_size(int.from_bytes(body[4:8], "big"), int.from_bytes(body[:4], "big"))
            plain = body[8] == 8 and body[9] in (0, 2)  # 8-bit gray or RGB; the rest differs between OpenCV's versions
        elif kind in (b"tRNS", b"eXIf"):
            plain = False
        elif kind == b"IEND":
            return plain
        position = end
