"""The patch embedding: turns an image, or a hybrid's feature map, into tokens (arXiv 2010.11929, section 3.1)."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
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
      stride: pixels per position of the input: more than 1 for a hybrid's feature map, 1 for an image; used in messages.

    Source: arXiv 2010.11929 section 3.1.
    """

    features: int
    patch_size: tuple[int, int]
    dtype: jnp.dtype
    stride: int = 1

    @nn.compact
    def __call__(self, images: Float[Array, "b h w channels"]) -> Float[Array, "b gh gw d"]:
        b, h, w, channels = images.shape
        ph, pw = self.patch_size
        if h % ph or w % pw:
            what = f"image of {h}x{w} pixels" if self.stride == 1 else f"feature map of {h}x{w} positions"
            near = [max(size // side, 1) * side * self.stride for size, side in ((h, ph), (w, pw))]
            raise UserError(
                f"{what} is not divisible by the patch of {ph}x{pw}; choose a resolution (data.resolution) that is, for "
                f"example {near[0]}x{near[1]}"
            )
        kernel = self.param("kernel", initializers.lecun_normal(), (ph, pw, channels, self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        images, kernel, bias = (x.astype(self.dtype) for x in (images, kernel, bias))
        patches = images.reshape(b, h // ph, ph, w // pw, pw, channels)  # b gh ph gw pw channels
        return jnp.einsum("bypxqc,pqcd->byxd", patches, kernel) + bias[None, None, None]


def describe_patches(patch_size: tuple[int, int], grid: tuple[int, int]) -> list[tuple[str, str]]:
    """Rows of `ImageModel.describe` for a model with patches: their number and size, and a note if they are few."""
    gh, gw = grid
    rows = [("images", f"{gh}x{gw} patches of {'x'.join(map(str, patch_size))}")]
    if gh * gw < 16:
        rows.append(("note", f"{gh * gw} patches an image are few; a smaller model.patch_size usually does better"))
    return rows


def whole_patches(resolution: tuple[int, int], patch_size: tuple[int, int]) -> tuple[int, int]:
    """(h, w) in pixels of the largest whole number of patches, at least one, that fits a resolution."""
    h, w = (max(side // patch, 1) * patch for side, patch in zip(resolution, patch_size, strict=True))
    return h, w
