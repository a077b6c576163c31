"""From an image, or a hybrid's feature map, to tokens (arXiv 2010.11929, section 3.1): the patch embedding.

Called by: models.vit, models.mixer.
"""

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
      what: what is cut, for messages.

    Source: arXiv 2010.11929 section 3.1.
    """

    features: int
    patch_size: tuple[int, int]
    dtype: jnp.dtype
    what: str = "image"

    @nn.compact
    def __call__(self, images: Float[Array, "b h w channels"]) -> Float[Array, "b gh gw d"]:
        b, h, w, channels = images.shape
        ph, pw = self.patch_size
        if h % ph or w % pw:
            raise UserError(
                f"{self.what} of {h}x{w} pixels is not divisible by the patch of {ph}x{pw}; set data.resolution to a "
                f"multiple, for example {max(h // ph, 1) * ph}x{max(w // pw, 1) * pw}"
            )
        kernel = self.param("kernel", initializers.lecun_normal(), (ph, pw, channels, self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        images, kernel, bias = (x.astype(self.dtype) for x in (images, kernel, bias))
        patches = images.reshape(b, h // ph, ph, w // pw, pw, channels)  # b gh ph gw pw channels
        return jnp.einsum("bypxqc,pqcd->byxd", patches, kernel) + bias[None, None, None]
