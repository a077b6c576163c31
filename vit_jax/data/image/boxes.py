"""Boxes that follow the geometry of their image. They are shares of the image, so a resize leaves them as they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from vit_jax.targets import BoxLabel

MIRRORED = [2, 1, 0, 3]  # left and right exchange


def crop_boxes(target: Any, shape: tuple[int, ...], box: tuple[int, int, int, int]) -> Any:
    """The target of a crop: boxes are moved and clipped, and one without area there does not count any more.

    Args:
      target: of the image; any other than a BoxLabel is returned as it is.
      shape: (h, w, ...) of the image.
      box: (top, left, height, width) of the crop, in pixels.
    """
    if not isinstance(target, BoxLabel):
        return target
    top, left, height, width = box
    pixels = target.box * np.array([shape[1], shape[0]] * 2, np.float32)
    moved = (pixels - np.array([left, top] * 2, np.float32)) / np.array([width, height] * 2, np.float32)
    clipped = np.clip(moved, 0, 1).astype(np.float32)
    has_area = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    return target._replace(box=clipped, valid=target.valid * has_area.astype(np.float32))


def flip_boxes(target: Any) -> Any:
    """The target of a mirror image; any other than a BoxLabel is returned as it is."""
    if not isinstance(target, BoxLabel):
        return target
    return target._replace(box=np.abs(np.array([1, 0, 1, 0], np.float32) - target.box)[:, MIRRORED])
