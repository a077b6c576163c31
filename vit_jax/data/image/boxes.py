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


def place_boxes(target: Any, shape: tuple[int, ...], canvas: tuple[float, float]) -> Any:
    """The target of an image that lies at the top left of a larger canvas; any other than a BoxLabel is returned as it is.

    Args:
      target: of the image.
      shape: (h, w) of the image.
      canvas: (h, w) of the canvas in the same unit.
    """
    if not isinstance(target, BoxLabel):
        return target
    share = np.array([shape[1] / canvas[1], shape[0] / canvas[0]] * 2, np.float32)
    return target._replace(box=np.clip(target.box * share, 0, 1))


def flip_boxes(target: Any) -> Any:
    """The target of a mirror image; any other than a BoxLabel is returned as it is."""
    if not isinstance(target, BoxLabel):
        return target
    return target._replace(box=np.abs(np.array([1, 0, 1, 0], np.float32) - target.box)[:, MIRRORED])


def to_stored_pixels(boxes: np.ndarray, sizes: np.ndarray, resolution: tuple[int, int], *, padded: bool) -> np.ndarray:
    """Boxes of prepared images in pixels of the images as stored.

    Args:
      boxes: float (b, k, 4), corners as shares of the prepared image.
      sizes: int (b, 2), (h, w) of the stored images.
      resolution: (h, w) of the prepared images.
      padded: the aspect was kept and the rest was filled, below or right; else the image was squashed.

    Returns:
      float64 (b, k, 4).
    """
    h, w = sizes[:, 0].astype(np.float64), sizes[:, 1].astype(np.float64)
    if padded:
        shrunk = np.maximum(h / resolution[0], w / resolution[1])  # stored pixels per prepared one
        h, w = resolution[0] * shrunk, resolution[1] * shrunk
    return boxes.astype(np.float64) * np.stack([w, h, w, h], axis=-1)[:, None]
