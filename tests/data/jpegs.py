"""JPEGs of noise for tests."""

import io

import numpy as np
import PIL.Image

IMAGE = np.random.default_rng(0).integers(0, 256, (101, 77, 3), np.uint8)


def jpeg(image=IMAGE, **options):
    """The bytes of an image of noise, or of another, as Pillow writes them with these options."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()
