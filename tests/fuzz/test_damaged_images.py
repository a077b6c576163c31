"""Fuzz of the one decoder: a damaged image is a whole picture or a corrupt image, in little memory and time."""

import io

import mutations
import numpy as np
import PIL.Image

from vit_jax.data.image.decode import decode, read_orientation
from vit_jax.data.image.encoded import MAX_PIXELS, CorruptImage
from vit_jax.data.image.jpeg import TopOfJpeg, find_height


def good_images():
    """One of each kind that is decoded in a way of its own."""
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(0, 256, (6, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    rgb = PIL.Image.fromarray(pixels)
    deep = PIL.Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    kinds = [
        (rgb, "JPEG", {}),
        (rgb, "JPEG", {"progressive": True}),
        (rgb, "JPEG", {"exif": exif.tobytes(), "subsampling": 2}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgb.convert("L"), "JPEG", {}),
        (rgb, "PNG", {}),
        (rgb.convert("RGBA"), "PNG", {}),
        (rgb.convert("P"), "PNG", {}),
        (rgb.convert("LA"), "PNG", {}),
        (deep, "PNG", {}),
        (rgb.convert("1"), "PNG", {}),
        (rgb, "WEBP", {}),
        (rgb, "WEBP", {"lossless": True}),
        (rgb, "BMP", {}),
        (rgb.convert("P"), "BMP", {}),
        (rgb, "TIFF", {}),
        (deep, "TIFF", {"compression": "tiff_lzw"}),
        (rgb, "TIFF", {"compression": "jpeg"}),
        (rgb, "TIFF", {"compression": "tiff_deflate"}),
        (rgb, "GIF", {}),
        (rgb, "GIF", {"save_all": True, "append_images": [rgb.rotate(90)]}),
    ]
    files = []
    for picture, fmt, options in kinds:
        file = io.BytesIO()
        picture.save(file, fmt, **options)
        files.append(file.getvalue())
    return files


def test_a_damaged_image_is_a_picture_or_a_corrupt_image():
    good = good_images()
    assert all(decode(data).shape in ((48, 64, 3), (64, 48, 3)) for data in good)
    for number, rng in mutations.cases():
        damaged = mutations.mutate(good[number % len(good)], rng)
        if (
            place := find_height(damaged) if damaged[:2] == b"\xff\xd8" else 0
        ):  # as of a packed set, which says it is whole
            with mutations.judged(number, CorruptImage):
                top = TopOfJpeg(damaged, place)
                assert top[slice(0, 1), slice(0, 1)].shape == (1, 1, 3)
        with mutations.judged(number, CorruptImage):
            image = decode(damaged)
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert 0 < image.shape[0] * image.shape[1] <= MAX_PIXELS
            assert image.shape[2] == 3
            assert read_orientation(damaged) is not None
            fast = decode(damaged, fast_dct=True)
            if place := find_height(damaged) if damaged[:2] == b"\xff\xd8" else 0:  # what the second epoch reads of it
                rows = max(image.shape[0] // 2, 1)
                assert (TopOfJpeg(damaged, place)[slice(0, rows), slice(0, image.shape[1])] == fast[:rows]).all()
