"""Decoding, cropping and resizing against the results of `tf.image`; tests/golden/make_tf_image.py made the values.

Kernels are compared on float pictures, to 1e-3 of the range. On bytes, as they are used, half a unit of rounding comes on top
and OpenCV's fixed-point arithmetic, which moves a value by up to 0.3 more: there the promise of `resize` holds, 1 unit.
"""

from pathlib import Path

import numpy as np
import pytest

from vit_jax.data.image import augment
from vit_jax.data.image.crops import central_box, cut, resize, resize_small
from vit_jax.data.image.decode import decode
from vit_jax.data.image.jpeg import TopOfJpeg, find_height

with np.load(Path(__file__).resolve().parents[2] / "golden" / "tf_image.npz") as file:
    GOLDEN = dict(file)
PHOTOGRAPH = GOLDEN["photograph"]
KERNEL = 255 * 1e-3
BYTES = 1.0


def keys(kind):
    return sorted(key for key in GOLDEN if key.startswith(kind + "_"))


def numbers(key):
    return tuple(int(n) for n in key.split("_")[1:])


def largest_error(found, expected):
    assert found.shape == expected.shape
    return np.abs(found.astype(np.float64) - expected / 256).max()


@pytest.mark.parametrize("key", keys("bilinear"))
def test_resize_is_tensorflows_bilinear_without_antialias(key):
    assert largest_error(resize(PHOTOGRAPH.astype(np.float32), numbers(key)), GOLDEN[key]) < KERNEL
    assert largest_error(resize(PHOTOGRAPH, numbers(key)), GOLDEN[key]) < BYTES


@pytest.mark.parametrize("key", keys("crop"))
def test_a_crop_is_resized_without_looking_beyond_its_border(key):
    top, left, height, width = numbers(key)
    part = PHOTOGRAPH[top : top + height, left : left + width]
    assert largest_error(resize(part.astype(np.float32), (28, 28)), GOLDEN[key]) < KERNEL
    assert largest_error(resize(part, (28, 28)), GOLDEN[key]) < BYTES


@pytest.mark.parametrize("key", keys("area"))
def test_resize_small_and_central_crop_are_big_visions(key):
    (small,) = numbers(key)
    for image, tolerance in ((PHOTOGRAPH.astype(np.float32), KERNEL), (PHOTOGRAPH, BYTES)):
        covering = resize_small(image, (small, small))
        found = cut(covering, central_box(covering, (28, 28)))
        assert largest_error(found, GOLDEN[key]) < tolerance


class Drawn:
    """A generator that draws the sign it is given."""

    def __init__(self, sign):
        self._sign = sign

    def random(self):
        return 0.0 if self._sign < 0 else 1.0


@pytest.mark.parametrize("key", keys("randaugment"))
def test_operations_of_randaugment_are_tensorflows_to_the_bit(key):
    _, magnitude, name, *sign = key.split("_")
    found = augment.OPS[name](PHOTOGRAPH[:24, :32].copy(), int(magnitude) / 10, Drawn(int(sign[0]) if sign else 1))
    assert np.array_equal(found, GOLDEN[key])


def test_a_jpeg_decodes_as_tensorflows_accurate_method_does():
    found = decode(GOLDEN["jpeg"].tobytes())
    assert np.array_equal(found, GOLDEN["whole_accurate"])
    # TensorFlow's default, which the release used, is a faster and coarser inverse DCT; big_vision offers both.
    assert np.abs(found.astype(int) - GOLDEN["whole_default"]).max() <= 5
    assert np.array_equal(decode(GOLDEN["jpeg"].tobytes(), fast_dct=True), GOLDEN["whole_default"])


@pytest.mark.parametrize("key", keys("jpeg"))
def test_part_of_a_jpeg_is_that_of_decode_and_crop_jpeg(key):
    top, left, height, width = numbers(key)
    data = GOLDEN["jpeg"].tobytes()
    found = decode(data)[top : top + height, left : left + width]
    assert np.array_equal(found, GOLDEN[key])
    cut = TopOfJpeg(data, find_height(data))[top : top + height, left : left + width]
    assert np.array_equal(cut, GOLDEN["whole_default"][top : top + height, left : left + width])
