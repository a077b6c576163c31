"""The relative position bias of BEiT (arXiv 2106.08254) and of SimMIM's ViT (arXiv 2111.09886), and its resizing."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vit_jax.models.positions import CLASS_OFFSETS, Method, interpolation_matrix


class RelativeBias(nn.Module):
    """A learned bias of each head's attention logits for every 2-D offset between two patches (BEiT, arXiv 2106.08254).

    Offsets run row by row, from the key's place to the query's; three follow for the class token: to a patch, from a patch, to
    itself.

    Args:
      grid: (gh, gw).
      has_class_token: whether token 0 is the class token.
      num_heads: attention heads.

    Source: SimMIM's ViT, arXiv 2111.09886; one table for all layers in pre-training, one per layer in fine-tuning.
    """

    grid: tuple[int, int]
    has_class_token: bool
    num_heads: int

    @nn.compact
    def __call__(self) -> Float[Array, "1 heads n n"]:
        gh, gw = self.grid
        offsets = (2 * gh - 1) * (2 * gw - 1) + CLASS_OFFSETS * self.has_class_token
        table = self.param("rel_bias", nn.initializers.zeros_init(), (offsets, self.num_heads), jnp.float32)
        return jnp.moveaxis(table[bias_index(self.grid, has_class_token=self.has_class_token)], -1, 0)[None]


def bias_index(grid: tuple[int, int], *, has_class_token: bool) -> np.ndarray:
    """The entry of `RelativeBias`'s table for every (query, key): int32 (n, n)."""
    gh, gw = grid
    y, x = (axis.ravel() for axis in np.indices(grid))
    index = (y[:, None] - y + gh - 1) * (2 * gw - 1) + x[:, None] - x + gw - 1
    if has_class_token:
        between = (2 * gh - 1) * (2 * gw - 1)
        index = np.pad(index, ((1, 0), (1, 0)))
        index[0], index[1:, 0], index[0, 0] = between, between + 1, between + 2
    return index.astype(np.int32)


def resample_bias(
    table: np.ndarray, old_grid: tuple[int, int], new_grid: tuple[int, int], method: Method = "bilinear_corners"
) -> np.ndarray:
    """Resizes `RelativeBias`'s table, (offsets, heads), the class token's offsets last, if there is a class token, to another
    grid."""
    old, new = (tuple(2 * side - 1 for side in grid) for grid in (old_grid, new_grid))
    between, rest = np.split(table, [old[0] * old[1]])
    rows, columns = (interpolation_matrix(o, m, method) for o, m in zip(old, new, strict=True))
    spread = between.reshape(*old, -1).astype(np.float64)
    resized = np.einsum("yv,xw,vwh->yxh", rows, columns, spread, optimize=True).reshape(new[0] * new[1], -1)
    return np.concatenate([resized.astype(table.dtype), rest])
