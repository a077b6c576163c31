"""Images made smaller when they are packed: a run that never needs 2,000 pixels should not decode them in every epoch."""

from __future__ import annotations

import io

from vit_jax.data.image.crops import resize_small
from vit_jax.data.image.decode import decode, read_orientation

QUALITY = 95  # of the new JPEGs, without chroma subsampling
ORIENTATION = 0x0112  # EXIF's tag


def shrink(data: bytes, short_side: int) -> bytes:
    """Makes the shorter side of an encoded image `short_side` pixels, by area; an image that is not larger stays as it is.

    Args:
      data: an encoded image.
      short_side: pixels.

    Returns:
      A JPEG, with the orientation that the image had in EXIF, or `data` itself.

    Raises:
      CorruptImage: see `data.image.decode.decode`.
    """
    image = decode(data, upright=False)
    if min(image.shape[:2]) <= short_side:
        return data
    from PIL import Image

    small = Image.fromarray(resize_small(image, (short_side, short_side)))
    exif = Image.Exif()
    if (orientation := read_orientation(data)) != 1:
        exif[ORIENTATION] = orientation
    held = io.BytesIO()
    small.save(held, "JPEG", quality=QUALITY, subsampling=0, exif=exif.tobytes() if len(exif) else b"")
    return held.getvalue()
