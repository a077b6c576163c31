"""MLP-Mixer (arXiv 2105.01601): an MLP across patches, then one across channels, in every block.

The original repository releases its weights beside the Vision Transformer's. Parameter paths are those of that release.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from vit_jax.models import heads
from vit_jax.models.base import HEAD, IDENTITY, TRAINING, ImageModel
from vit_jax.models.dropout import DropPath
from vit_jax.models.embedding import PatchEmbedding, describe_patches, whole_patches
from vit_jax.models.encoder import Gelu, MlpBlock
from vit_jax.models.inputs import check_grid, check_images
from vit_jax.types import Outputs, UserError


class MixerBlock(nn.Module):
    """Token mixing and channel mixing, each behind a LayerNorm and added to its input."""

    tokens_mlp_dim: int
    channels_mlp_dim: int
    gelu: Gelu
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], drop_rate: Float[Array, ""] | None, train: bool):
        def branch(y, number):
            return y if drop_rate is None else DropPath(name=f"DropPath_{number}")(y, drop_rate, train)

        norm = functools.partial(nn.LayerNorm, epsilon=1e-6, dtype=self.dtype)
        y = norm(name="LayerNorm_0")(x).swapaxes(1, 2)  # b d n
        y = MlpBlock(self.tokens_mlp_dim, 0.0, self.dtype, self.gelu, name="token_mixing")(y, train=train)
        x = x + branch(y.swapaxes(1, 2), 0)
        y = norm(name="LayerNorm_1")(x)
        y = MlpBlock(self.channels_mlp_dim, 0.0, self.dtype, self.gelu, name="channel_mixing")(y, train=train)
        return x + branch(y, 1)


class MlpMixer(ImageModel):
    """MLP-Mixer; the token-mixing MLPs fix the number of patches, so it works at one resolution only.

    Args:
      num_classes: outputs of the head; 0 for no head (`Outputs.logits` is None).
      patch_size: (h, w) of a patch, pixels.
      width: channels d.
      depth: blocks.
      tokens_mlp_dim: hidden units of the MLP across patches.
      channels_mlp_dim: hidden units of the MLP across channels.
      head_bias: initial bias of the head.
      stochastic_depth: rate at the last block, growing linearly from 0 at the first.
      gelu: `tanh` (released) or `erf`.
      dtype: compute dtype; parameters, LayerNorm statistics, head and loss are always float32.

    Source: arXiv 2105.01601, table 1.
    """

    num_classes: int = dataclasses.field(metadata=HEAD)
    patch_size: tuple[int, int] = (16, 16)
    width: int = 768
    depth: int = 12
    tokens_mlp_dim: int = 384
    channels_mlp_dim: int = 3072
    head_bias: float = dataclasses.field(default=0.0, metadata=TRAINING)
    stochastic_depth: float = dataclasses.field(default=0.0, metadata=TRAINING)
    gelu: Gelu = dataclasses.field(default="tanh", metadata=IDENTITY)
    dtype: Literal["float32", "bfloat16"] = dataclasses.field(default="float32", metadata=TRAINING)

    def grid(self, resolution: tuple[int, int]) -> tuple[int, int]:
        """(gh, gw) of the patches of an image of (h, w) pixels."""
        return resolution[0] // self.patch_size[0], resolution[1] // self.patch_size[1]

    def pixels(self, grid: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the images whose patches make a grid."""
        return grid[0] * self.patch_size[0], grid[1] * self.patch_size[1]

    def suit(self, resolution: tuple[int, int]) -> tuple[int, int]:
        """Rounds to whole patches."""
        return whole_patches(resolution, self.patch_size)

    def describe(self, resolution: tuple[int, int]) -> list[tuple[str, str]]:
        """Depth, width and patches."""
        return [("model", f"{self.depth} x {self.width}"), *describe_patches(self.patch_size, self.grid(resolution))]

    @property
    def first_layer(self) -> str:
        """The patch embedding, by its name in the release."""
        return "stem"

    @nn.compact
    def __call__(
        self, images: Shaped[ArrayLike, ...], *, train: bool = False, capture: tuple[str, ...] = ()
    ) -> Outputs:
        """Runs the model on float (b, h, w, channels); `capture` may name `layers` only."""
        if set(capture) - {"layers"}:
            raise UserError(f"capture={capture}: a Mixer has layers to capture, and no attention")
        check_images(images, self.variables, self.first_layer)
        dtype = jnp.dtype(self.dtype)
        x = PatchEmbedding(self.width, self.patch_size, dtype, name="stem")(jnp.asarray(images))
        check_grid((x.shape[1], x.shape[2]), self.variables, has_class_token=False, patch=self.patch_size)
        x = x.reshape(x.shape[0], -1, self.width)  # b n d
        layers = []
        for layer in range(self.depth):
            rate = None
            if self.stochastic_depth:
                rate = jnp.asarray(self.stochastic_depth * layer / max(self.depth - 1, 1), jnp.float32)
            block = MixerBlock(self.tokens_mlp_dim, self.channels_mlp_dim, self.gelu, dtype, name=f"MixerBlock_{layer}")
            x = block(x, rate, train)
            layers.append(x)
        tokens = nn.LayerNorm(epsilon=1e-6, dtype=dtype, name="pre_head_layer_norm")(x)
        pooled = tokens.mean(axis=1)
        logits = None
        if self.num_classes:
            logits = heads.classifier(self.num_classes, self.head_bias)(pooled.astype(jnp.float32))
        return Outputs(tokens, pooled, pooled, logits, layers=tuple(layers) if "layers" in capture else None)
