"""Geometry of one image: resize, crop, flip (arXiv 2010.11929, appendix B.1). Images are uint8 (h, w, 3), sizes are (h, w), and
crops are drawn as boxes, with a generator, before they are cut, so that a target can follow."""

from __future__ import annotations

import math
from typing import Protocol

import cv2
import numpy as np

from vit_jax.data.image.decode import Image

MAX_ATTEMPTS = 100  # of tf.image.sample_distorted_bounding_box, before it takes the whole image

Size = tuple[int, int]
Box = tuple[int, int, int, int]  # (top, left, height, width), pixels


class Croppable(Protocol):
    """An image that crops are cut out of: an array, or a `data.image.jpeg.TopOfJpeg`, which decodes only the part that is cut."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(h, w, 3)."""

    def __getitem__(self, part: tuple[slice, slice]) -> Image:
        """image[top:bottom, left:right]."""


def resize(image: Image, size: Size, out: Image | None = None) -> Image:
    """Bilinear, without antialiasing, half-pixel centres, as the released models were trained.

    Args:
      image: uint8 (h, w, 3), any size.
      size: (h, w) of the result; the aspect ratio is not kept.
      out: uint8 (size[0], size[1], 3), to be written and returned in place of a new array.

    Returns:
      uint8 (size[0], size[1], 3), within 1 of the exact value (OpenCV interpolates in fixed point).

    Source: `tf.image.resize(method="bilinear", antialias=False)`.
    """
    return cv2.resize(image, (size[1], size[0]), dst=out, interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def resize_small(image: Image, size: Size) -> Image:
    """Keeps the aspect ratio: the smallest picture that covers `size`, (h, w). Each pixel is the mean of the area that it
    covers, be it of many pixels or a part of one: enlarging repeats pixels and mixes them where they meet.

    Source: big_vision's `resize_small` (`tf.image.resize(method="area")`), within 1, for it truncates.
    """
    h, w = image.shape[:2]
    scale = max(size[0] / h, size[1] / w)
    shape = max(round(h * scale), size[0]), max(round(w * scale), size[1])
    if scale <= 1:
        return cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA)  # type: ignore[return-value]
    enlarged = _spread(_spread(image.astype(np.float32), shape[0], 0), shape[1], 1)
    return cv2.convertScaleAbs(enlarged) if image.dtype == np.uint8 else enlarged  # type: ignore[return-value]


def resize_smooth(image: Image, size: Size) -> Image:
    """To (h, w): the mean over the area of a new pixel where the image shrinks, bilinear where it grows."""
    shrinks = size[0] < image.shape[0] or size[1] < image.shape[1]
    kind = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image), (size[1], size[0]), interpolation=kind)  # type: ignore[return-value]


def _spread(image: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Enlarges one axis of a float image to `size` by area, for which INTER_AREA takes another way: a new pixel lies in one old
    pixel or across the border of two."""
    length = image.shape[axis] / size  # of a new pixel, in old ones
    ends = np.arange(1, size + 1) * length
    last = np.minimum(np.ceil(ends - 1e-9).astype(int), image.shape[axis]) - 1
    share = np.clip((ends - last) / length, 0, 1).astype(np.float32)  # of the new pixel that lies in its last old one
    share = share.reshape([-1 if i == axis else 1 for i in range(image.ndim)])
    before, after = image.take(np.maximum(last - 1, 0), axis), image.take(last, axis)
    after -= before
    after *= share
    after += before
    return after


def sample_box(
    height: int, width: int, rng: np.random.Generator, area: tuple[float, float], aspect: tuple[float, float]
) -> Box:
    """Draws the box of an Inception crop.

    The aspect ratio is uniform in `aspect`, then the height uniform between those that give the least and the largest
    area (so areas are not uniform, unlike torchvision's). Boxes that do not fit are drawn again, 100 times at most.

    Args:
      height: pixels of the image.
      width: pixels of the image.
      rng: where the randomness comes from.
      area: least and largest share of the image's area, in (0, 1].
      aspect: least and largest width / height of the box.

    Returns:
      (top, left, height, width) of the box in pixels; the whole image after 100 failures.

    Source: `tf.image.sample_distorted_bounding_box` with min_object_covered=0. One thing differs: TensorFlow never
      places the box at the last row or column it could have, which on an 8 x 8 image would pin it to a corner.
    """
    low_area, high_area = area[0] * height * width, area[1] * height * width
    for _ in range(MAX_ATTEMPTS):
        ratio = rng.uniform(*aspect)
        low, high = round(math.sqrt(low_area / ratio)), round(math.sqrt(high_area / ratio))
        high = min(high, height, int((width + 0.5 - 1e-7) / ratio))
        box_h = int(rng.integers(min(low, high), high + 1))
        if box_h * round(box_h * ratio) < low_area:  # rounding went below the range: one pixel more
            box_h += 1
        if box_h * round(box_h * ratio) > high_area:
            box_h -= 1
        box_w = round(box_h * ratio)
        fits = 0 < box_h <= height and 0 < box_w <= width
        if fits and low_area <= box_h * box_w <= high_area:
            top = int(rng.integers(height - box_h + 1))
            left = int(rng.integers(width - box_w + 1))
            return top, left, box_h, box_w
    return 0, 0, height, width


def random_box(image: Croppable, rng: np.random.Generator, size: Size) -> Box:
    """A box of exactly `size` pixels, every position equally likely. Raises ValueError where it does not fit."""
    _check_fits(image, size)
    top = int(rng.integers(image.shape[0] - size[0] + 1))
    left = int(rng.integers(image.shape[1] - size[1] + 1))
    return top, left, size[0], size[1]


def central_box(image: Croppable, size: Size) -> Box:
    """The middle `size` pixels; an odd margin leaves the extra pixel below and right. Raises ValueError if too small."""
    _check_fits(image, size)
    return (image.shape[0] - size[0]) // 2, (image.shape[1] - size[1]) // 2, size[0], size[1]


def _check_fits(image: Croppable, size: Size) -> None:
    if image.shape[0] < size[0] or image.shape[1] < size[1]:
        raise ValueError(f"cannot crop {size[0]} x {size[1]} from an image of {image.shape[0]} x {image.shape[1]}")


def cut(image: Croppable, box: Box) -> Image:
    """The part of an image in a box."""
    top, left, height, width = box
    return image[top : top + height, left : left + width]


def flip(image: Image, out: Image | None = None) -> Image:
    """The mirror image, left and right exchanged, in `out` if given, which may be `image`."""
    # Copying numpy's view image[:, ::-1], three bytes at a time, would take ten times as long as OpenCV.
    return cv2.flip(image, 1, dst=out)  # type: ignore[return-value]
