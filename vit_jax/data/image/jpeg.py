"""The upper part of a JPEG, for crops that do not reach its last row: the rows below them cost nothing.

libjpeg can stop early only when it is called row by row, and no Python binding exposes that. But a baseline JPEG is a stream of
rows of blocks, whose number follows from the height in the header: with a smaller height there, the decoder reads as many
and stops. The pixels are the same, bit for bit. Damage below, or damage that only shifts what follows, goes unnoticed, so
only data that `decode.decode` has accepted before may be decoded this way.
"""

from __future__ import annotations

import struct
import threading

import numpy as np

from vit_jax.data.image.decode import Image, decode, read_orientation
from vit_jax.data.image.encoded import MAX_PIXELS, MAX_SIDE, walk_jpeg

_HEIGHT_AND_WIDTH = struct.Struct(">HH")
_HEIGHT_WIDTH_COMPONENTS = struct.Struct(">HHB")
MARGIN = 2  # rows: chroma of the last rows is interpolated with the rows that follow


_scratch = threading.local()


def _scratch_memory(size: int) -> np.ndarray:
    """This thread's memory of at least `size` bytes. Allocating half a megabyte an image costs page faults each time."""
    if getattr(_scratch, "memory", np.empty(0)).size < size:
        _scratch.memory = np.empty(size, np.uint8)
    return _scratch.memory


class TopOfJpeg:
    """An image that decodes when a part of it is taken, as `decode.decode(data, fast_dct=True)` does. It stands in for an array
    where only `.shape` and one crop are used.

    Args:
      data: a JPEG.
      place: from `find_height`, not 0.
    """

    def __init__(self, data: bytes, place: int):
        self._data, self._place = data, place
        self.shape = (*_HEIGHT_AND_WIDTH.unpack_from(data, place), 3)

    def __getitem__(self, part: tuple[slice, slice]) -> Image:
        """image[top:bottom, left:right], all of them given and inside the image; good until this thread's next call."""
        import simplejpeg

        data, rows = self._data, min(part[0].stop + MARGIN, self.shape[0])
        if rows < self.shape[0]:
            rest = memoryview(data)[self._place + 2 :]
            data = b"".join((data[: self._place], rows.to_bytes(2, "big"), rest))
        # Not strict, because the decoder would refuse the data that follows the last row.
        memory = _scratch_memory(rows * self.shape[1] * 3)
        try:
            image: Image = simplejpeg.decode_jpeg(data, "RGB", fastdct=True, strict=False, buffer=memory)
        except ValueError:  # chroma subsampling that TurboJPEG has no name for, which `decode.decode` leaves to Pillow
            image = decode(self._data, fast_dct=True)
        return image[part]


def find_height(data: bytes) -> int:
    """Finds the height in a JPEG's header, if the upper part of the JPEG can be decoded alone.

    Args:
      data: an encoded image that `decode.decode` has accepted, here or when the data set was packed.

    Returns:
      The position, less than 65,536; or 0 for images that must be decoded whole: other formats, progressive and CMYK JPEGs,
      several scans, pictures that EXIF turns, and headers that `decode.decode` would refuse.
    """
    frame = 0
    for kind, start in walk_jpeg(data):
        if kind in (0xC0, 0xC1):  # baseline and extended sequential
            frame = start
        elif kind == 0xE1 and data[start : start + 6] == b"Exif\0\0" and read_orientation(data) != 1:
            return 0
        elif kind == 0xDA and frame and len(data) >= frame + 6:
            height, width, components = _HEIGHT_WIDTH_COMPONENTS.unpack_from(data, frame + 1)
            scan = data[start]
            spectrum = data[start + 1 + 2 * scan : start + 4 + 2 * scan]
            whole = components == scan and components in (1, 3) and spectrum == b"\0\x3f\0"
            allowed = 0 < height * width <= MAX_PIXELS and max(height, width) <= MAX_SIDE
            return frame + 1 if whole and allowed and frame < 65_535 else 0
    return 0
