"""ResNets with GroupNorm and weight-standardised convolutions: the stem of hybrids, and BiT, the paper's CNN baseline.

The two differ in ways that released weights depend on: the stem is post-activation (V1), pads like TensorFlow's SAME and
max-pools against minus infinity; BiT is pre-activation (V2) and pads evenly with zeros, also for its max-pool.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from vit_jax.models import heads, initializers
from vit_jax.models.base import HEAD, TRAINING, ImageModel
from vit_jax.models.inputs import check_images
from vit_jax.types import Outputs, UserError

Padding = str | tuple[tuple[int, int], tuple[int, int]]


class StdConv(nn.Module):
    """A convolution whose kernel has mean 0 and variance 1 over all inputs of each output channel; no bias.

    Args:
      features: output channels.
      kernel_size: side.
      strides: stride in both directions.
      padding: `SAME` or pairs of zeros.
      eps: keeps the division finite; added to the standard deviation, or under the root (`eps_in_root`).
      dtype: compute dtype; the kernel is standardised in float32.

    Source: arXiv 1903.10520.
    """

    features: int
    kernel_size: int
    strides: int
    padding: Padding
    eps: float
    eps_in_root: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b h w in"]) -> Float[Array, "b h2 w2 out"]:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", initializers.lecun_normal(), shape, jnp.float32)
        kernel = kernel - kernel.mean(axis=(0, 1, 2), keepdims=True)
        variance = (kernel**2).mean(axis=(0, 1, 2), keepdims=True)
        kernel = kernel / (jnp.sqrt(variance + self.eps) if self.eps_in_root else jnp.sqrt(variance) + self.eps)
        return jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            (self.strides, self.strides),
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


def group_norm(x: Float[Array, "b h w c"], name: str, eps: float, dtype: jnp.dtype) -> Float[Array, "b h w c"]:
    """GroupNorm over 32 groups of channels (fewer than 32 channels: one group each), statistics in float32."""
    return nn.GroupNorm(num_groups=min(32, x.shape[-1]), epsilon=eps, dtype=dtype, name=name)(x)


class ResidualUnit(nn.Module):
    """A bottleneck whose last ReLU follows the sum (V1).

    Args:
      features: channels of the 3x3 convolution; the output has four times as many.
      strides: strides of the 3x3 convolution and of the projection.
      dtype: compute dtype.
    """

    features: int
    strides: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        def conv(x, features, side, strides, name):
            return StdConv(features, side, strides, "SAME", 1e-5, False, self.dtype, name=name)(x)

        def norm(x, name):
            return group_norm(x, name, 1e-6, self.dtype)

        residual = x
        if x.shape[-1] != 4 * self.features or self.strides != 1:
            residual = norm(conv(x, 4 * self.features, 1, self.strides, "conv_proj"), "gn_proj")
        y = nn.relu(norm(conv(x, self.features, 1, 1, "conv1"), "gn1"))
        y = nn.relu(norm(conv(y, self.features, 3, self.strides, "conv2"), "gn2"))
        y = norm(conv(y, 4 * self.features, 1, 1, "conv3"), "gn3")
        return nn.relu(residual + y)


class Stage(nn.Module):
    """Residual units at one resolution. The first unit halves the resolution, except in the first stage."""

    depth: int
    features: int
    strides: int
    dtype: jnp.dtype
    unit: type[nn.Module] = ResidualUnit

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        for number in range(1, self.depth + 1):
            strides = self.strides if number == 1 else 1
            x = self.unit(self.features, strides, self.dtype, name=f"unit{number}")(x)
        return x


def resnet_stem(
    images: Float[Array, "b h w channels"], depths: tuple[int, ...], width: int, dtype: jnp.dtype
) -> Float[Array, "b h2 w2 c"]:
    """The convolutional part of a hybrid, as sub-modules of the calling module: `conv_root`, `gn_root`, `block1`, ...

    Args:
      images: any (h, w).
      depths: units per stage. (3, 4, 6, 3) is a whole ResNet50, stride 32; (3, 4, 9) has its last stage's units in the
        third, stride 16 (arXiv 2010.11929, section 3.1, options i and ii); () is the root block alone, stride 4.
      width: channels of the root block.
      dtype: compute dtype.
    """
    x = StdConv(width, 7, 2, "SAME", 1e-5, False, dtype, name="conv_root")(images)
    x = nn.relu(group_norm(x, "gn_root", 1e-6, dtype))
    x = nn.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
    for number, depth in enumerate(depths):
        x = Stage(depth, width * 2**number, 1 if number == 0 else 2, dtype, name=f"block{number + 1}")(x)
    return x


class PreActivationUnit(nn.Module):
    """A bottleneck whose GroupNorms and ReLUs precede the convolutions (V2); see `ResidualUnit`."""

    features: int
    strides: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        def conv(x, features, side, strides, name):
            pad = (side // 2, side // 2)
            return StdConv(features, side, strides, (pad, pad), 1e-10, True, self.dtype, name=name)(x)

        def activate(x, name):
            return nn.relu(group_norm(x, name, 1e-5, self.dtype))

        residual = x
        y = activate(x, "gn1")
        if x.shape[-1] != 4 * self.features or self.strides != 1:
            residual = conv(y, 4 * self.features, 1, self.strides, "conv_proj")
        y = conv(y, self.features, 1, 1, "conv1")
        y = conv(activate(y, "gn2"), self.features, 3, self.strides, "conv2")
        return residual + conv(activate(y, "gn3"), 4 * self.features, 1, 1, "conv3")


class ResNet(ImageModel):
    """ResNet V2 with GroupNorm and standardised convolutions: "ResNet (BiT)", the paper's baseline.

    Args:
      num_classes: outputs of the head; 0 for no head (`Outputs.logits` is None).
      depths: units per stage: (3, 4, 6, 3), (3, 4, 23, 3) and (3, 8, 36, 3) for 50, 101 and 152 layers, or any other.
      width_factor: multiplies every number of channels: x1, x2, x3, x4.
      head_bias: initial bias of the head.
      dtype: compute dtype; parameters, norms' statistics, head and loss are always float32.

    Source: arXiv 1912.11370; arXiv 2010.11929 section 4.1.
    """

    num_classes: int = dataclasses.field(metadata=HEAD)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    width_factor: int = 1
    head_bias: float = dataclasses.field(default=0.0, metadata=TRAINING)
    dtype: Literal["float32", "bfloat16"] = dataclasses.field(default="float32", metadata=TRAINING)

    def grid(self, resolution: tuple[int, int]) -> tuple[int, int]:
        """(gh, gw) of the last features of an image of (h, w) pixels."""
        stride = 2 ** (len(self.depths) + 1)
        return -(-resolution[0] // stride), -(-resolution[1] // stride)

    def describe(self, resolution: tuple[int, int]) -> list[tuple[str, str]]:
        """Units per stage, and the size of the last features."""
        gh, gw = self.grid(resolution)
        return [("model", "-".join(map(str, self.depths))), ("images", f"{gh}x{gw} features")]

    @property
    def first_layer(self) -> str:
        """The root convolution."""
        return "conv_root"

    @nn.compact
    def __call__(
        self, images: Shaped[ArrayLike, ...], *, train: bool = False, capture: tuple[str, ...] = ()
    ) -> Outputs:
        """Runs the model on float (b, h, w, channels): `tokens` are its features, row by row, and `pooled` is their mean."""
        del train  # the model has neither dropout nor batch statistics
        if capture:
            raise UserError(f"a ResNet has no {' or '.join(capture)} to capture")
        if self.width_factor < 1 or not self.depths or min(self.depths) < 1:
            raise UserError(
                f"model.depths is {self.depths} and model.width_factor {self.width_factor}; expected 1 or more"
            )
        check_images(images, self.variables, self.first_layer)
        dtype, width = jnp.dtype(self.dtype), 64 * self.width_factor
        x = StdConv(width, 7, 2, ((3, 3), (3, 3)), 1e-10, True, dtype, name="conv_root")(jnp.asarray(images))
        # Pad with zeros, not minus infinity, as released: at the border a negative maximum becomes 0.
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = nn.max_pool(x, (3, 3), strides=(2, 2))
        for number, depth in enumerate(self.depths):
            strides = 1 if number == 0 else 2
            x = Stage(depth, width * 2**number, strides, dtype, PreActivationUnit, name=f"block{number + 1}")(x)
        x = nn.relu(group_norm(x, "gn_final", 1e-5, dtype))
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])  # b n d
        pooled = tokens.mean(axis=1)
        logits = None
        if self.num_classes:
            logits = heads.classifier(self.num_classes, self.head_bias)(pooled.astype(jnp.float32))
        return Outputs(tokens=tokens, pooled=pooled, pre_logits=pooled, logits=logits)
