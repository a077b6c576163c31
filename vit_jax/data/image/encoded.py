"""Facts that the bytes of an encoded image give before any pixel is decoded: its size, a PNG's chunks, a JPEG's segments. A file
of a few hundred bytes may ask for gigabytes or for minutes; here it is refused at once."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# Pillow's own warning level. A larger picture is refused before its pixels are allocated.
MAX_PIXELS = 89_478_485
MAX_SIDE = 65_500  # libjpeg's limit; some decoders allocate several values a column whatever the height
MAX_SCANS = 100  # of a JPEG, each of which costs a pass over all blocks; progressive files have about ten
MAX_BYTES = 2**29  # of a file: MAX_PIXELS of 16-bit RGB, uncompressed
PNG = b"\x89PNG\r\n\x1a\n"
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by color type: gray, RGB, palette, gray and alpha, RGBA
# The seven passes of an interlaced PNG: first column and row, steps between columns and rows.
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_FILL = re.compile(rb"\xff+")


class CorruptImage(ValueError):  # noqa: N818 (named for what it says of the image)
    """The bytes are not a whole picture in a format that is read here. The loader counts it and continues."""


def check_size(height: int, width: int) -> None:
    """Raises CorruptImage for a picture of no pixels, of a side over MAX_SIDE, or of more than MAX_PIXELS."""
    if height < 1 or width < 1:
        raise CorruptImage(f"the image is {height} x {width} pixels")
    if height * width > MAX_PIXELS:
        raise CorruptImage(f"the image is {height} x {width}, more than the limit of {MAX_PIXELS} pixels")
    if max(height, width) > MAX_SIDE:
        raise CorruptImage(f"the image is {height} x {width}, more than the limit of {MAX_SIDE} pixels a side")


def walk_jpeg(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields (kind, start of the content) of a JPEG's segments, up to and with its first scan."""
    position, kind = 2, 0
    while kind != 0xDA and position < len(data) - 4:
        kind = data[position + 1]
        if kind == 0xFF:  # a marker may be preceded by any number of these
            fill = _FILL.match(data, position + 1)
            assert fill, "one stands there"
            position = fill.end() - 1
        else:
            yield kind, position + 4
            position += 2 + max(int.from_bytes(data[position + 2 : position + 4], "big"), 2)


def check_scans(data: bytes, segments: Iterable[tuple[int, int]]) -> None:
    """Raises CorruptImage for a JPEG of more than MAX_SCANS scans: 1,000 of them took 40 s to decode.

    Args:
      data: the JPEG.
      segments: those of `walk_jpeg(data)`, which the caller needs too.
    """
    components = b""
    for kind, start in segments:
        if kind in (0xC0, 0xC1):  # baseline and extended sequential
            components = data[start + 5 : start + 6]
        elif kind == 0xDA and components and data[start : start + 1] == components:
            return  # one scan holds all components, and is the only one that is decoded
    scans = data.count(b"\xff\xda")  # compressed data has a zero after each 0xff
    if scans > MAX_SCANS:
        raise CorruptImage(f"the JPEG has {scans} scans, more than the limit of {MAX_SCANS}")


class PngHeader(NamedTuple):
    """The fields of a PNG's first chunk."""

    width: int
    height: int
    depth: int
    color: int
    interlaced: bool

    def row_bytes(self) -> int:
        """Bytes of all rows before compression."""
        passes = ADAM7 if self.interlaced else ((0, 0, 1, 1),)
        total = 0
        for left, top, right, down in passes:
            columns, rows = -((left - self.width) // right), -((top - self.height) // down)
            if columns > 0 and rows > 0:
                total += rows * (1 + -(-columns * self.depth * PNG_CHANNELS.get(self.color, 0) // 8))
        return total


def walk_png(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields (kind, start of the content, its end) of a PNG's chunks, to the last one; CorruptImage for a damaged file."""
    position, kind = len(PNG), b""
    while kind != b"IEND":
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        end = position + 12 + length
        if end > len(data):
            raise CorruptImage("the PNG is truncated")
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise CorruptImage(f"the PNG is damaged: the checksum of its {kind!r} chunk is wrong")
        yield kind, position + 8, end - 4
        position = end


def read_png_header(data: bytes, start: int) -> PngHeader:
    """The content of the IHDR chunk that begins at `start`; CorruptImage for a size that is refused."""
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (start, start + 4))
    check_size(height, width)
    return PngHeader(width, height, data[start + 8], data[start + 9], bool(data[start + 12]))


def is_plain_png(data: bytes) -> bool:
    """Walks the PNG's chunks: False for one that Pillow should read, CorruptImage for one that is damaged."""
    plain = True
    for kind, start, end in walk_png(data):
        if kind == b"IHDR" and end - start == 13:
            header = read_png_header(data, start)
            # 8-bit gray or RGB; the rest differs between OpenCV's versions
            plain = header.depth == 8 and header.color in (0, 2)
        elif kind in (b"tRNS", b"eXIf"):
            plain = False
    return plain


def check_rows(data: bytes) -> None:
    """Raises CorruptImage for a PNG whose compressed stream ends before its last row: Pillow leaves the rest black.

    It inflates the stream, which is half the work of decoding it.
    """
    header, stream, inflated = None, zlib.decompressobj(), 0
    for kind, start, end in walk_png(data):
        if kind == b"IHDR" and end - start == 13:
            header = read_png_header(data, start)
        elif kind == b"IDAT" and header:
            rest = data[start:end]
            while rest and inflated < header.row_bytes():
                inflated += len(
                    stream.decompress(rest, 1 << 18)
                )  # not all at once, for it may be a thousand times as much
                rest = stream.unconsumed_tail
    if header is None or inflated < header.row_bytes():
        raise CorruptImage("the PNG's pixels end before its last row")
