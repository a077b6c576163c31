"""The Transformer encoder (arXiv 2010.11929, eqs. 2-4, appendix A): pre-norm blocks of self-attention and MLP.

Sub-module names (`LayerNorm_0`, `MultiHeadDotProductAttention_1`, `LayerNorm_2`, `MlpBlock_3`) are those of the released
files. LayerNorm statistics and the softmax are computed in float32 whatever the compute dtype.

Called by: models.vit; models.heads (attention pooling).
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax.models import initializers
from vit_jax.models.dropout import Dropout
from vit_jax.types import UserError


@jax.checkpoint
def gelu(x: Float[Array, ...]) -> Float[Array, ...]:
    """GELU, tanh approximation. Recomputed in the backward pass from its input, which is kept in any case.

    Left to itself, autodiff keeps four more arrays of the MLP's hidden size per block: a tenth of the training memory.
    """
    return nn.gelu(x, approximate=True)


class MlpBlock(nn.Module):
    """Two dense layers with a GELU (tanh approximation, as the released weights were trained) between them.

    Args:
      mlp_dim: hidden units.
      dropout: rate, applied after each dense layer.
      dtype: compute dtype.
    """

    mlp_dim: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], *, train: bool) -> Float[Array, "b n d"]:
        dense = functools.partial(
            nn.Dense,
            dtype=self.dtype,
            kernel_init=initializers.xavier_uniform(),
            bias_init=initializers.normal(stddev=1e-6),
        )
        d = x.shape[-1]
        x = gelu(dense(self.mlp_dim, name="Dense_0")(x))
        x = Dropout(self.dropout)(x, train)
        x = dense(d, name="Dense_1")(x)
        return Dropout(self.dropout)(x, train)


class MultiHeadDotProductAttention(nn.Module):
    """Multi-head attention (arXiv 2010.11929, appendix A); self-attention when both inputs are the same.

    Kernels are (d, heads, k) and (heads, k, d), initialised as the (d, d) matrices they flatten to.

    Args:
      num_heads: heads; must divide the width.
      dropout: rate on the attention weights; 0 in every published model.
      dtype: compute dtype.
    """

    num_heads: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, queries: Float[Array, "b n d"], inputs: Float[Array, "b m d"], *, train: bool
    ) -> Float[Array, "b n d"]:
        d = queries.shape[-1]
        if d % self.num_heads:
            raise UserError(
                f"width {d} is not divisible by {self.num_heads} heads; change model.width or model.num_heads"
            )
        k = d // self.num_heads
        project = functools.partial(
            nn.DenseGeneral,
            features=(self.num_heads, k),
            dtype=self.dtype,
            kernel_init=initializers.xavier_uniform(),
        )
        q = project(name="query")(queries)  # b n heads k
        keys = project(name="key")(inputs)  # b m heads k
        values = project(name="value")(inputs)  # b m heads k
        logits = jnp.einsum("bnhk,bmhk->bhnm", q * (k**-0.5), keys, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
        weights = Dropout(self.dropout)(weights, train)
        mixed = jnp.einsum("bhnm,bmhk->bnhk", weights, values)
        return nn.DenseGeneral(
            features=d, axis=(-2, -1), dtype=self.dtype, kernel_init=initializers.xavier_uniform(), name="out"
        )(mixed)


class EncoderBlock(nn.Module):
    """z' = MSA(LN(z)) + z;  z'' = MLP(LN(z')) + z' (arXiv 2010.11929, eqs. 2 and 3)."""

    num_heads: int
    mlp_dim: int
    dropout: float
    attention_dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, z: Float[Array, "b n d"], train: bool) -> Float[Array, "b n d"]:
        norm = functools.partial(nn.LayerNorm, epsilon=1e-6, dtype=self.dtype)
        attention = MultiHeadDotProductAttention(
            self.num_heads, self.attention_dropout, self.dtype, name="MultiHeadDotProductAttention_1"
        )
        y = norm(name="LayerNorm_0")(z)
        y = attention(y, y, train=train)
        z = z + Dropout(self.dropout)(y, train)
        y = norm(name="LayerNorm_2")(z)
        return z + MlpBlock(self.mlp_dim, self.dropout, self.dtype, name="MlpBlock_3")(y, train=train)
