"""Arrays as pictures: mosaics of filters and of positions, heat maps, and a map drawn over its image.

Colours are those of viridis, which are ordered by brightness for any colour vision. matplotlib is imported on use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDE, SMALL = 224, 128  # pixels that the shorter side of a picture has at least; on a sheet of many
OVER = 0.55  # share of a map's colours over an image
MOST_PLACES = 14  # places of an axis whose similarities are drawn


def mosaic(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Puts tiles side by side, row by row, a gap of one pixel between them.

    Args:
      tiles: (count, h, w) or (count, h, w, channels).
      columns: tiles in a row.

    Returns:
      float (rows (h + 1) - 1, columns (w + 1) - 1) with the channels of the tiles; nan in gaps.
    """
    count, h, w = tiles.shape[:3]
    rows = -(-count // columns)
    sheet = np.full((rows * (h + 1) - 1, columns * (w + 1) - 1, *tiles.shape[3:]), np.nan)
    for i, tile in enumerate(tiles):
        y, x = (i // columns) * (h + 1), (i % columns) * (w + 1)
        sheet[y : y + h, x : x + w] = tile
    return sheet


def filter_sheet(components: np.ndarray, columns: int = 7) -> np.ndarray:
    """Filters as colours: zero is mid-gray, and each filter's largest magnitude black or full colour.

    Args:
      components: (count, h, w, channels).
      columns: filters in a row.

    Returns:
      float (y, x, 4) in [0, 1], transparent in gaps.
    """
    if components.shape[-1] != 3:
        components = np.repeat(components.mean(axis=-1, keepdims=True), 3, axis=-1)
    scale = np.abs(components).max(axis=(1, 2, 3), keepdims=True)
    sheet = mosaic(0.5 + 0.5 * components / np.where(scale > 0, scale, 1), columns)
    return np.concatenate([np.nan_to_num(sheet), np.isfinite(sheet[..., :1])], axis=-1)


def position_sheet(similarity: np.ndarray) -> np.ndarray:
    """One tile for each place, where it stands in the image; of a large grid, for evenly spaced places.

    Args:
      similarity: (gh, gw, gh, gw).

    Returns:
      float (y, x); nan in gaps.
    """
    gh, gw = similarity.shape[:2]
    rows, columns = (np.linspace(0, g - 1, min(g, MOST_PLACES)).round().astype(int) for g in (gh, gw))
    return mosaic(similarity[np.ix_(rows, columns)].reshape(-1, gh, gw), len(columns))


def paint_sheet(ax: Axes, sheet: np.ndarray, **options: Any) -> None:
    """Draws a sheet without axes; of numbers, with a bar of colours."""
    drawn = ax.imshow(sheet, interpolation="none", **options)
    ax.set_axis_off()
    if sheet.ndim == 2:
        ax.figure.colorbar(drawn, ax=ax, shrink=0.6)


def colored(values: np.ndarray) -> np.ndarray:
    """A map as colours, its least value dark and its largest bright: uint8 (h, w, 3)."""
    from matplotlib import colormaps

    low, high = float(values.min()), float(values.max())
    shares = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return (255 * colormaps["viridis"](shares)[..., :3]).round().astype(np.uint8)


def enlarged(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """A small image by a whole factor, so that its pixels stay squares; uint8 (h, w, 3)."""
    factor = max(1, -(-side // min(image.shape[:2])))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def overlay(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A map in colours over its image in gray, enlarged smoothly.

    The paper's figure 6 darkens the image instead, which hides what a model attends to beside a bright object on black.

    Args:
      image: uint8 (h, w, 3).
      values: (gh, gw).

    Returns:
      uint8 (h, w, 3).
    """
    h, w = image.shape[:2]
    smooth = cv2.resize(np.asarray(values, np.float32), (w, h), interpolation=cv2.INTER_LINEAR)
    gray = image.mean(axis=-1, keepdims=True)
    return np.asarray((OVER * colored(smooth) + (1 - OVER) * gray).round(), np.uint8)


def contact_sheet(rows: Sequence[Sequence[np.ndarray]], gap: int = 6) -> np.ndarray:
    """Pictures of one size in rows, white between them: uint8 (y, x, 3)."""

    def join(parts: Sequence[np.ndarray], axis: int) -> np.ndarray:
        shape = [*parts[0].shape]
        shape[axis] = gap
        white = np.full(shape, 255, np.uint8)
        return np.concatenate([x for part in parts for x in (white, part)][1:], axis=axis)

    return join([join(row, 1) for row in rows], 0)


def encode_png(image: np.ndarray) -> bytes:
    """A PNG of uint8 (h, w, 3)."""
    return bytes(cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())
