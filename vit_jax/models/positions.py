"""Position embeddings: every cell of table 8 (arXiv 2010.11929, appendix D.4) and fixed sin-cos embeddings.

Added vectors (`learned_1d`, `learned_2d`, `sincos_2d`) join the tokens once after the stem, or at every layer, with one
table per layer or one shared; `relative` embeddings and `relative_bias` act inside the attention. The `resample_*` functions
resize them.
"""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vit_jax.models import initializers
from vit_jax.types import UserError

Kind = Literal[
    "learned_1d", "learned_2d", "sincos_2d", "sincos_centred", "sincos_mae", "relative", "relative_bias", "none"
]
Place = Literal["stem", "every_layer", "shared"]
Method = Literal["bilinear_corners", "bilinear", "bicubic", "bicubic_antialias"]

# Three offsets follow those between patches: class token to itself, class token to patch, patch to class token.
CLASS_OFFSETS = 3

# Of `sincos_centred`: as in arXiv 2201.12329, and an amplitude below that of the patches' content.
TEMPERATURE = 20.0
AMPLITUDE = np.float32(0.3)


class PositionEmbedding(nn.Module):
    """The vectors to add to tokens, one per position; only `learned_1d` and `sincos_mae` have an entry for the class token.

    `learned_2d` holds a table of d / 2 for the column (X) and one for the row (Y) of a patch and concatenates them; the
    class token has neither row nor column and gets no position (it is learned itself). `sincos_mae` is a table that starts as
    MAE's and is not trained: it lies in the checkpoint, because released files hold it and it differs from `sincos_2d`.

    Args:
      kind: `learned_1d`, `learned_2d`, `sincos_2d`, `sincos_centred` (as `Yolos` has them) or `sincos_mae`.
      grid: (gh, gw) of the patches.
      has_class_token: whether token 0 is the class token.
      dtype: compute dtype.

    Source: arXiv 2010.11929 eq. 1 and appendix D.4; sin-cos: arXiv 2104.02057 section 4, as arXiv 2205.01580 uses it.
    """

    kind: Kind
    grid: tuple[int, int]
    has_class_token: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n d"]) -> Float[Array, "1 n d"]:
        """Returns the vectors to add to `tokens`, whose values are not read."""
        _, n, d = tokens.shape
        normal = initializers.normal(stddev=0.02)
        if self.kind == "learned_1d":
            return jnp.asarray(self.param("pos_embedding", normal, (1, n, d), jnp.float32), self.dtype)
        if self.kind == "sincos_mae":
            start = np.pad(sincos_2d(self.grid, d, whole=False), ((int(self.has_class_token), 0), (0, 0)))[None]
            table = self.param(
                "pos_embedding", lambda _, shape, dtype: jnp.asarray(start, dtype), start.shape, jnp.float32
            )
            return jax.lax.stop_gradient(jnp.asarray(table, self.dtype))
        gh, gw = self.grid
        if self.kind == "learned_2d":
            if d % 2:
                raise UserError(f"learned_2d positions halve the width, and model.width is {d}; make it even")
            x = self.param("pos_embedding_x", normal, (1, gw, d // 2), jnp.float32)
            y = self.param("pos_embedding_y", normal, (1, gh, d // 2), jnp.float32)
            halves = [
                jnp.broadcast_to(x[:, None], (1, gh, gw, d // 2)),
                jnp.broadcast_to(y[:, :, None], (1, gh, gw, d // 2)),
            ]
            table = jnp.concatenate(halves, axis=-1).reshape(1, gh * gw, d)  # 1 n d
        else:
            fixed = sincos_2d(self.grid, d) if self.kind == "sincos_2d" else sincos_centred(self.grid, self.grid, d)
            table = jnp.asarray(fixed)[None]  # 1 n d
        return jnp.pad(table, ((0, 0), (int(self.has_class_token), 0), (0, 0))).astype(self.dtype)


def sincos_2d(
    grid: tuple[int, int],
    d: int,
    *,
    temperature: float = 10_000.0,
    whole: bool = True,
    over: tuple[int, int] | None = None,
) -> np.ndarray:
    """Fixed embeddings: sines and cosines of a patch's column, then of its row, at d / 4 frequencies each.

    Args:
      grid: (gh, gw).
      d: width, divisible by 4.
      temperature: ratio of the slowest wavelength to the fastest.
      whole: whether the d / 4 wavelengths reach that ratio (MoCo v3, big_vision) or end one step before it (MAE).
      over: (gh, gw) of the patches, of which `grid` places are spread evenly over the image; None for the patches themselves.

    Returns:
      float32 (gh * gw, d).
    """
    if d % 4:
        raise UserError(f"sincos_2d positions need a width divisible by 4; model.width is {d}")
    frequencies = temperature ** -(np.arange(d // 4) / max(d // 4 - whole, 1))
    places = [(np.arange(g) + 0.5) * (o / g) - 0.5 for g, o in zip(grid, over or grid, strict=True)]
    y, x = np.meshgrid(*(places if over else (np.arange(g) for g in grid)), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in (x, y)]  # n d/4
    return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1).astype(np.float32)


def sincos_centred(places: tuple[int, int], grid: tuple[int, int], d: int) -> np.ndarray:
    """Sines and cosines of places spread evenly over a grid of patches, less their mean over the patches: float32 (places, d).

    With the usual temperature of 10,000 most of an embedding is the same everywhere, and LayerNorm hides the rest: of the
    variance of a new model's detection tokens 3% was left to the places and 0.3% to the image; now 80% and 3%.
    """
    mean = sincos_2d(grid, d, temperature=TEMPERATURE).mean(axis=0)
    return AMPLITUDE * (sincos_2d(places, d, temperature=TEMPERATURE, over=grid) - mean)


def keys_as_queries(params: dict[str, Any]) -> dict[str, Any]:
    """New parameters, {name: array}, whose keys begin as queries: with `sincos_centred`, tokens attend to those near them.

    After arXiv 2305.09828, which draws queries and keys whose product is close to the identity.
    """
    keys = {name: name.replace("/key/", "/query/") for name in params if name.endswith("/key/kernel")}
    # Copies: a training step reuses the memory of each parameter.
    return params | {key: jnp.array(params[query], copy=True) for key, query in keys.items()}


class RelativePositions(nn.Module):
    """Attention logits of each query against an embedding of the 1-D offset between its position and the key's.

    Positions count patches row by row, so offsets run from -(n - 1) to n - 1. The class token has no place in the image, so it
    has three offsets of its own: to itself, to any patch, and from any patch.

    Args:
      grid: (gh, gw).
      has_class_token: whether token 0 is the class token.

    Source: arXiv 2010.11929 appendix D.4, "relative".
    """

    grid: tuple[int, int]
    has_class_token: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, q: Float[Array, "b n heads k"]) -> Float[Array, "b heads n n"]:
        n, heads, k = q.shape[1:]
        patches = self.grid[0] * self.grid[1]
        shape = (2 * patches - 1 + CLASS_OFFSETS * self.has_class_token, heads, k)
        table = self.param("rel_embedding", initializers.normal(stddev=0.02), shape, jnp.float32)
        against = jnp.einsum("bnhk,ohk->bhno", q, table.astype(self.dtype), preferred_element_type=jnp.float32)
        index = relative_index(patches, has_class_token=self.has_class_token)[None, None]
        return jnp.take_along_axis(against, jnp.broadcast_to(index, (*against.shape[:3], n)), axis=-1)


def relative_index(patches: int, *, has_class_token: bool) -> np.ndarray:
    """The entry of the offset table for every (query, key): int32 (n, n)."""
    at = np.arange(patches)
    index = at[:, None] - at[None, :] + patches - 1
    if has_class_token:
        index = np.pad(index, ((1, 0), (1, 0)))
        index[0, 0], index[0, 1:], index[1:, 0] = 2 * patches - 1 + np.arange(CLASS_OFFSETS)
    return index.astype(np.int32)


def cubic_kernel(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel (R. Keys, 1981) with parameter a."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def interpolation_matrix(old: int, new: int, method: Method = "bilinear_corners") -> np.ndarray:
    """Weights of a linear map that resizes an axis.

    Args:
      old: given length.
      new: wanted length.
      method: `bilinear_corners` aligns the corners: output i samples the input at i * (old - 1) / (new - 1), as the
        release does (a single output reads input 0). The others sample at half-pixel centres, (i + 1/2) * old / new - 1/2, and
        repeat the border: `bilinear`, `bicubic` (a = -3/4, as Hugging Face does through PyTorch), and `bicubic_antialias`
        (a = -1/2, widened when shrinking, borders renormalised, as timm does through PyTorch).

    Returns:
      float64 (new, old); every row sums to 1.
    """
    weights = np.zeros((new, old))
    rows = np.arange(new)
    if method == "bicubic_antialias":
        scale = max(old / new, 1.0)
        centres = (rows + 0.5) * (old / new)
        weights = cubic_kernel((np.arange(old) + 0.5 - centres[:, None]) / scale, -0.5)
        return weights / weights.sum(axis=1, keepdims=True)
    if method == "bilinear_corners":
        at = rows * ((old - 1) / (new - 1)) if new > 1 else np.zeros(1)
    else:
        at = (rows + 0.5) * (old / new) - 0.5
    low = np.floor(at).astype(int)
    if method == "bicubic":
        taps = [(tap, cubic_kernel(at - low - tap, -0.75)) for tap in (-1, 0, 1, 2)]
    else:
        taps = [(0, 1 - (at - low)), (1, at - low)]
    for tap, weight in taps:
        np.add.at(weights, (rows, np.clip(low + tap, 0, old - 1)), weight)
    return weights


def resample_positions(
    positions: np.ndarray,
    old_grid: tuple[int, int],
    new_grid: tuple[int, int],
    *,
    has_class_token: bool,
    method: Method = "bilinear_corners",
) -> np.ndarray:
    """Resizes learned 1-D position embeddings to another grid, by default as the release does.

    The release calls `scipy.ndimage.zoom(order=1)`, which zeroes the last row and column for some sizes (such as 28 -> 48);
    this function does not reproduce that defect. `jax.image.resize` differs: it samples at half-pixel centres.

    Args:
      positions: float (1, n, d), the class token's entry first where there is one.
      old_grid: (gh, gw) that `positions` was trained at.
      new_grid: (gh, gw) wanted; integers, so that no rounded scale factor decides the size.
      has_class_token: whether entry 0 belongs to the class token, which is kept unchanged. Never guessed from n.
      method: see `interpolation_matrix`.

    Returns:
      (1, n', d) in the dtype of `positions`.

    Raises:
      UserError: n does not fit `old_grid`.

    Source: arXiv 2010.11929 section 3.2.
    """
    extra = int(has_class_token)
    _, n, d = positions.shape
    if n != old_grid[0] * old_grid[1] + extra:
        raise UserError(
            f"position embeddings hold {n} entries, but a {old_grid[0]}x{old_grid[1]} grid "
            f"{'with' if extra else 'without'} class token has {old_grid[0] * old_grid[1] + extra}"
        )
    grid = positions[0, extra:].reshape(*old_grid, d).astype(np.float64)  # gh gw d
    rows, columns = (interpolation_matrix(o, m, method) for o, m in zip(old_grid, new_grid, strict=True))
    grid = np.einsum("yg,xw,gwd->yxd", rows, columns, grid, optimize=True)
    tokens = grid.reshape(1, new_grid[0] * new_grid[1], d).astype(positions.dtype)  # 1 n' d
    return np.concatenate([positions[:, :extra], tokens], axis=1)


def resample_axis(table: np.ndarray, new: int, method: Method = "bilinear_corners") -> np.ndarray:
    """Resizes an X or Y table of `learned_2d`, (1, g, d / 2), to (1, new, d / 2)."""
    weights = interpolation_matrix(table.shape[1], new, method)
    return np.einsum("ng,agd->and", weights, table.astype(np.float64)).astype(table.dtype)


def resample_relative(
    table: np.ndarray, old_grid: tuple[int, int], new_grid: tuple[int, int], method: Method = "bilinear_corners"
) -> np.ndarray:
    """Resizes a table of 1-D offsets to another grid, through the 2-D offsets that it represents.

    An offset between two patches, dy rows and dx columns, is dy * gw + dx in one dimension. The table is spread over all
    (dy, dx), resized there, and gathered: a new 1-D offset is the mean over the pairs of patches that share it.

    Args:
      table: float (offsets, heads, k), the class token's offsets last, if there is a class token.
      old_grid: (gh, gw) that it was trained at.
      new_grid: (gh, gw) wanted.
      method: see `interpolation_matrix`.
    """
    (gh, gw), (mh, mw) = old_grid, new_grid
    between, rest = np.split(table, [2 * gh * gw - 1])
    dy, dx = np.meshgrid(np.arange(1 - gh, gh), np.arange(1 - gw, gw), indexing="ij")
    spread = between[dy * gw + dx + gh * gw - 1].astype(np.float64)  # 2gh-1 2gw-1 heads k
    # Old and new offsets both run from one border of the image to the other, with 0 in the middle.
    rows, columns = (
        interpolation_matrix(2 * o - 1, 2 * m - 1, method) for o, m in zip(old_grid, new_grid, strict=True)
    )
    resized = np.einsum("yv,xw,vwhk->yxhk", rows, columns, spread, optimize=True)
    dy, dx = np.meshgrid(np.arange(1 - mh, mh), np.arange(1 - mw, mw), indexing="ij")
    pairs = ((mh - np.abs(dy)) * (mw - np.abs(dx))).astype(np.float64)
    total = np.zeros((2 * mh * mw - 1, *table.shape[1:]))
    count = np.zeros(2 * mh * mw - 1)
    index = dy * mw + dx + mh * mw - 1
    np.add.at(total, index, resized * pairs[..., None, None])
    np.add.at(count, index, pairs)
    gathered = (total / count[:, None, None]).astype(table.dtype)
    return np.concatenate([gathered, rest])
