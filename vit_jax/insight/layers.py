"""How a model's position embeddings resemble one another, and two models' layers: numbers from arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vit_jax.types import UserError

NUMBERS = 2**24  # of kernels of examples that are in memory at a time, float64


def position_similarity(table: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Cosine similarity of the position embeddings of every two patches.

    Args:
      table: (n, d) or (1, n, d); entries before those of the patches, as of a class token, are left out.
      grid: (gh, gw) of the patches, row by row.

    Returns:
      float64 (gh, gw, gh, gw); 0 where an embedding is zero.

    Raises:
      UserError: the table has fewer entries than the grid.

    Source: arXiv 2010.11929, figure 7 (centre).
    """
    rows = np.asarray(table, np.float64).reshape(-1, table.shape[-1])
    num = grid[0] * grid[1]
    if len(rows) < num:
        raise UserError(
            f"the table has {len(rows)} positions; a grid of {grid[0]}x{grid[1]} needs {num}: correct the grid"
        )
    rows = rows[len(rows) - num :]
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return (unit @ unit.T).reshape(*grid, *grid)


def offset_similarity(table: np.ndarray, index: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Cosine similarity of the embedding of every offset between two patches with that of a patch to itself.

    Args:
      table: (offsets, d).
      index: int (n, n), the offset of each (query, key).
      grid: (gh, gw) of the patches, row by row.

    Returns:
      float64 (gh, gw, gh, gw), query before key.
    """
    rows = np.asarray(table, np.float64)
    own = rows[index[0, 0]]
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(own)
    cosines = np.divide(rows @ own, lengths, out=np.zeros(len(rows)), where=lengths > 0)
    return cosines[index].reshape(*grid, *grid)


def cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear centred kernel alignment of two sets of features of the same examples: 1 if they are equal up to rotation, shift and
    scale, 0 if no direction of one is correlated with the other.

    Args:
      x, y: (examples, features); numbers of features may differ.

    Raises:
      UserError: the numbers of examples differ, or features do not vary.

    Source: arXiv 1905.00414, section 3.
    """
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise UserError(
            f"expected features (examples, features) of the same examples, found {x.shape} and {y.shape}; compute both on "
            "the same images"
        )
    x, y = (np.asarray(z, np.float64) - np.asarray(z, np.float64).mean(axis=0) for z in (x, y))
    scale = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    if not scale:
        raise UserError(
            "features of all examples are equal, so that their similarity is not defined; give more examples"
        )
    return float(np.linalg.norm(y.T @ x) ** 2 / scale)


def layer_similarity(xs: Sequence[np.ndarray], ys: Sequence[np.ndarray]) -> np.ndarray:
    """`cka` of every two of two sequences of features of the same examples.

    The kernels of examples stand in for the features: with few examples, comparing all layers of two models costs little. Some
    rows of the kernels are in memory at a time: whole ones of 3,000 images and 12 layers were 2.5 GB.

    Args:
      xs, ys: features (examples, d) of each layer; d may differ.

    Returns:
      float64 (layers of xs, layers of ys); nan where the features of a layer are equal for all examples.
    """

    if len({len(layer) for layer in (*xs, *ys)}) != 1:
        found = ", ".join(str(np.shape(layer)) for layer in (*xs, *ys))
        raise UserError(f"expected features (examples, d) of the same examples, found {found or 'no layer'}")
    sides = [[_centred(layer) for layer in layers] for layers in ([xs] if ys is xs else [xs, ys])]
    left, right, count = sides[0], sides[-1], len(xs[0])
    products = np.zeros((len(left), len(right)))
    squares = [np.zeros(len(left)), np.zeros(len(right))]
    rows = max(1, NUMBERS // (count * (len(left) + len(right))))
    for start in range(0, count, rows):
        x = _kernel_rows(left, start, rows)
        y = x if right is left else _kernel_rows(right, start, rows)
        products += x @ y.T
        for total, kernel in zip(squares, (x, y), strict=True):
            total += np.einsum("lk,lk->l", kernel, kernel)
    lengths = np.outer(*(np.sqrt(total) for total in squares))
    return np.divide(products, lengths, out=np.full_like(products, np.nan), where=lengths > 0)


def _centred(layer: np.ndarray) -> np.ndarray:
    z = np.asarray(layer, np.float64)
    return z - z.mean(axis=0)


def _kernel_rows(layers: Sequence[np.ndarray], start: int, rows: int) -> np.ndarray:
    """Some rows of the kernel of each layer: (layers, rows * examples)."""
    count = len(layers[0])
    found = np.empty((len(layers), min(rows, count - start), count))
    for z, kernel in zip(layers, found, strict=True):
        np.matmul(z[start : start + rows], z.T, out=kernel)
    return found.reshape(len(layers), -1)
