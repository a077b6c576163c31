"""The upper part of a JPEG equals that of the whole picture, bit for bit; a JPEG that cannot be cut is decoded whole."""

import io

import numpy as np
import PIL.Image
import pytest
from jpegs import IMAGE, jpeg

from vit_jax.data.image.decode import decode
from vit_jax.data.image.jpeg import TopOfJpeg, find_height


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0", "4:1:1"])
@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}, {"optimize": True}], ids=str)
def test_every_upper_part_equals_that_of_the_whole(sampling, options):
    data = jpeg(subsampling=sampling, **options)
    whole = decode(data, fast_dct=True)
    top = TopOfJpeg(data, find_height(data))
    assert top.shape == whole.shape
    for bottom in range(1, 102):
        assert np.array_equal(top[0:bottom, 3:70], whole[:bottom, 3:70]), bottom


def test_gray_and_fill_bytes_are_no_obstacle():
    gray = jpeg(IMAGE[..., 0])
    padded = gray[:2] + b"\xff\xff" + gray[2:]  # markers may be preceded by any number of 0xFF
    for data in (gray, padded):
        assert np.array_equal(TopOfJpeg(data, find_height(data))[10:33, 0:77], decode(data, fast_dct=True)[10:33])


def test_what_is_below_is_not_decoded():
    data = jpeg()
    broken = data[: len(data) * 2 // 3]  # half of the rows fit in less than that
    assert np.array_equal(TopOfJpeg(broken, find_height(data))[0:50, 0:77], decode(data, fast_dct=True)[:50])


def test_what_turbojpeg_refuses_is_decoded_whole(monkeypatch):
    import simplejpeg

    def refuse_parts(data, *args, **options):
        if "buffer" in options:
            raise ValueError("could not determine subsampling type")
        return decode_jpeg(data, *args, **options)

    decode_jpeg = simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", refuse_parts)
    data = jpeg()
    found = TopOfJpeg(data, find_height(data))[5:20, 3:70]
    assert np.array_equal(found, decode(data, fast_dct=True)[5:20, 3:70])


def test_what_cannot_be_cut_short_is_told_apart():
    rotated = PIL.Image.Exif()
    rotated[0x0112] = 6
    upright = PIL.Image.Exif()
    upright[0x0112] = 1
    buffer = io.BytesIO()
    PIL.Image.fromarray(IMAGE).save(buffer, "PNG")
    inks = io.BytesIO()
    PIL.Image.fromarray(np.zeros((8, 8, 4), np.uint8), "CMYK").save(inks, "JPEG")
    whole = [jpeg(progressive=True), jpeg(exif=rotated), buffer.getvalue(), inks.getvalue()]
    assert [find_height(data) for data in whole] == [0, 0, 0, 0]
    assert find_height(jpeg(exif=upright)) > 0
