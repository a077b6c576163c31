"""From an image to a sequence of tokens (arXiv 2010.11929, eq. 1): patches, class token, position embeddings.

Called by: models.vit; convert (`resample_positions`, when a checkpoint meets another resolution).
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vit_jax.models import initializers
from vit_jax.types import UserError


class PatchEmbedding(nn.Module):
    """Cuts an image into patches and projects each to a token: a convolution whose stride is its kernel.

    Written as one matrix product over flattened patches, which XLA runs faster than a strided convolution; the kernel
    keeps the convolution's HWIO shape, as released.

    Args:
      features: width d of a token.
      patch_size: (h, w) of a patch in pixels.
      dtype: compute dtype.

    Source: arXiv 2010.11929 section 3.1.
    """

    features: int
    patch_size: tuple[int, int]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, images: Float[Array, "b h w channels"]) -> Float[Array, "b gh gw d"]:
        b, h, w, channels = images.shape
        ph, pw = self.patch_size
        if h % ph or w % pw:
            raise UserError(
                f"image of {h}x{w} pixels is not divisible by the patch of {ph}x{pw}; set data.resolution to a multiple, "
                f"for example {max(h // ph, 1) * ph}x{max(w // pw, 1) * pw}"
            )
        kernel = self.param("kernel", initializers.lecun_normal(), (ph, pw, channels, self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        images, kernel, bias = (x.astype(self.dtype) for x in (images, kernel, bias))
        patches = images.reshape(b, h // ph, ph, w // pw, pw, channels)  # b gh ph gw pw channels
        return jnp.einsum("bypxqc,pqcd->byxd", patches, kernel) + bias[None, None, None]


class PositionEmbedding(nn.Module):
    """Adds one learned vector per token, the class token's included (arXiv 2010.11929, appendix D.4, "1-D").

    Args:
      dtype: compute dtype.
    """

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        _, n, d = tokens.shape
        positions = self.param("pos_embedding", initializers.normal(stddev=0.02), (1, n, d), jnp.float32)
        return tokens + positions.astype(self.dtype)


def interpolation_matrix(old: int, new: int) -> np.ndarray:
    """Weights of linear interpolation with corners aligned: output i samples the input at i * (old - 1) / (new - 1).

    Returns:
      float64 (new, old); every row sums to 1. One output (new = 1) reads input 0, as scipy.ndimage.zoom does.
    """
    at = np.arange(new) * ((old - 1) / (new - 1)) if new > 1 else np.zeros(1)
    low = np.clip(np.floor(at).astype(int), 0, max(old - 2, 0))
    high = np.minimum(low + 1, old - 1)
    weights = np.zeros((new, old))
    np.add.at(weights, (np.arange(new), low), 1 - (at - low))
    np.add.at(weights, (np.arange(new), high), at - low)
    return weights


def resample_positions(
    positions: np.ndarray, old_grid: tuple[int, int], new_grid: tuple[int, int], *, has_class_token: bool
) -> np.ndarray:
    """Resizes learned position embeddings to another grid, as the release does: bilinear, corners aligned.

    The release calls `scipy.ndimage.zoom(order=1)`, which zeroes the last row and column for some sizes (28 -> 48 is
    one): that defect is not reproduced. `jax.image.resize`, which samples at half-pixel centres, is another function.

    Args:
      positions: float (1, n, d), the class token's entry first where there is one.
      old_grid: (gh, gw) that `positions` was trained at.
      new_grid: (gh, gw) wanted; integers, so no rounding of a scale factor decides the size.
      has_class_token: whether entry 0 belongs to the class token, which is kept as it is. Never guessed from n.

    Returns:
      (1, n', d) of the dtype given.

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
    rows, columns = (interpolation_matrix(o, m) for o, m in zip(old_grid, new_grid, strict=True))
    grid = np.einsum("yg,xw,gwd->yxd", rows, columns, grid, optimize=True)
    tokens = grid.reshape(1, new_grid[0] * new_grid[1], d).astype(positions.dtype)  # 1 n' d
    return np.concatenate([positions[:, :extra], tokens], axis=1)
