"""The path from tokens to class scores: pooling, the optional tanh representation layer, the zero-initialised head."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax.models import initializers
from vit_jax.models.encoder import BlockSettings, MlpBlock, MultiHeadDotProductAttention


class MapHead(nn.Module):
    """Multi-head attention pooling: a learned probe attends to all tokens (arXiv 2106.04560, section 3.3)."""

    settings: BlockSettings

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "b n d"], weights: bool = False
    ) -> tuple[Float[Array, "b d"], Float[Array, "b heads 1 n"] | None]:
        """Returns the pooled vector and, if `weights` asks for it, the probe's attention."""
        b, _, d = tokens.shape
        settings = self.settings
        probe = self.param("probe", initializers.xavier_uniform(), (1, 1, d), jnp.float32)
        probe = jnp.broadcast_to(probe.astype(settings.dtype), (b, 1, d))
        attention = MultiHeadDotProductAttention(settings, name="MultiHeadDotProductAttention_0")
        x, found = attention(probe, tokens, train=False, weights=weights)
        y = settings.norm("LayerNorm_0")(x)
        mlp = MlpBlock(settings.mlp_dim, 0.0, settings.dtype, settings.gelu, name="MlpBlock_0")
        return (x + mlp(y, train=False))[:, 0], found


def representation_layer(width: int, dtype: jnp.dtype) -> nn.Dense:
    """The hidden layer of the pre-training head; the caller applies its tanh (arXiv 2010.11929, section 3.1)."""
    return nn.Dense(width, dtype=dtype, kernel_init=initializers.lecun_normal(), name="pre_logits")


def classifier(num_classes: int, bias: float) -> nn.Dense:
    """The linear head in float32 with a zero kernel: a new head starts from the prior in its bias (section 3.2).

    Args:
      num_classes: outputs.
      bias: initial value of the bias; -10 for sigmoid losses over many classes, so that training does not begin with
        thousands of confident mistakes, and 0 elsewhere.
    """
    return nn.Dense(
        num_classes,
        dtype=jnp.float32,
        kernel_init=nn.initializers.zeros_init(),
        bias_init=nn.initializers.constant(bias),
        name="head",
    )
