"""Similarity of images by a model's frozen representation: unit vectors for a data set, and each one's nearest neighbours, found
in blocks on the device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.types import Batch

BLOCK = 1024  # rows compared with the whole other side at a time


class Embedder:
    """Computes representations (`pre_logits`, which few-shot probes read) of length 1; zeros if an image did not decode.

    Args:
      forward: from `models.build.make_forward`.
      params: the model's parameters.
    """

    def __init__(self, forward: Callable[..., Any], params: Any):
        self._params = jax.device_put(params)

        def embed(params: Any, image: jax.Array, mask: jax.Array) -> jax.Array:
            x = forward(params, image).pre_logits.astype(jnp.float32)
            x = x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
            return x * mask[:, None]

        self._embed = jax.jit(embed)

    def __call__(self, batches: Iterator[Batch]) -> np.ndarray:
        """Returns float16 (n, d), one row per row of the batches, padding included."""
        # One batch is on the device while the next is decoded.
        parts = [self._embed(self._params, batch.image, batch.mask) for batch in batches]
        return np.concatenate([np.asarray(part, np.float16) for part in parts])


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Scales each row to length 1 in float32, because float16 keeps it only nearly; rows of zeros stay."""
    x = x.astype(np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def pair_cosines(
    left: np.ndarray,
    right: np.ndarray,
    embed_left: Callable[[np.ndarray], np.ndarray],
    embed_right: Callable[[np.ndarray], np.ndarray],
    *,
    part: int,
) -> np.ndarray:
    """Cosine of each pair of examples. Each example is embedded once, the left ones one part at a time.

    Args:
      left, right: integers (p,), the examples of each pair, sorted by `left`.
      embed_left, embed_right: integers (n,) -> (n, d), representations of examples.
      part: left examples whose representations are in memory at a time.

    Returns:
      float32 (p,).
    """
    cosines = np.zeros(len(left), np.float32)
    if not len(left):
        return cosines
    others = np.unique(right)
    their_rows = unit_rows(embed_right(others))
    chosen = np.unique(left)
    for start in range(0, len(chosen), part):
        some = chosen[start : start + part]
        rows = unit_rows(embed_left(some))
        low, high = np.searchsorted(left, [some[0], some[-1] + 1])
        a = rows[np.searchsorted(some, left[low:high])]
        b = their_rows[np.searchsorted(others, right[low:high])]
        cosines[low:high] = np.einsum("pd,pd->p", a, b)
    return cosines


def embed_parts(
    count: int, part: int, cache: Path, embed: Callable[[int, int], np.ndarray]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields representations of a whole data set in parts; parts that an earlier run wrote are read.

    Args:
      count: number of examples.
      part: examples per part, which is written once it is embedded.
      cache: folder for this data set and this checkpoint.
      embed: (start, stop) -> float16 (stop - start, d).

    Yields:
      (start, float16 (b, d)).
    """
    cache.mkdir(parents=True, exist_ok=True)
    for start in range(0, count, part):
        stop, file = min(start + part, count), cache / f"{start:010}.npy"
        try:
            rows = np.load(file)
        except (OSError, ValueError, EOFError):
            rows = None
        if rows is None or len(rows) != stop - start:
            rows = embed(start, stop)
            partial = file.with_suffix(".partial")
            with partial.open("wb") as opened:
                np.save(opened, rows)
            partial.replace(file)
        yield start, rows


def find_nearest(x: np.ndarray, y: np.ndarray, *, threshold: float, k: int = 3) -> tuple[np.ndarray, ...]:
    """Finds the rows of `y` nearest to each row of `x`.

    Args:
      x: float (n, d).
      y: float (m, d).
      threshold: smallest cosine.
      k: at most this many for each row of x.

    Returns:
      (row of x int64 (p,), row of y int64 (p,), cosine float32 (p,)), sorted by row of x, the nearest first.
    """
    right = jnp.asarray(unit_rows(y))
    parts = []
    for start in range(0, len(x), BLOCK):
        block = np.zeros((BLOCK, x.shape[1]), np.float32)  # one shape, one compilation
        rows = x[start : start + BLOCK]
        block[: len(rows)] = unit_rows(rows)
        cosine, which = (np.asarray(v)[: len(rows)] for v in _top(block, right, min(k, len(y))))
        i, j = np.nonzero(cosine >= threshold)
        parts.append((i + start, which[i, j].astype(np.int64), cosine[i, j]))
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


@functools.partial(jax.jit, static_argnums=2)
def _top(block: jax.Array, right: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    cosine = jnp.einsum("nd,md->nm", block, right, precision="highest")
    values, indices = jax.lax.top_k(cosine, k)
    return values, indices
