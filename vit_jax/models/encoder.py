"""The Transformer encoder (arXiv 2010.11929, eqs. 2-4, appendix A): pre-norm blocks of self-attention and MLP.

Sub-module names (`LayerNorm_0`, `MultiHeadDotProductAttention_1`, `LayerNorm_2`, `MlpBlock_3`) are those of the released
files; an option's parameters have names of their own, so a tree without the option equals the released one. LayerNorm
statistics and the softmax are computed in float32 whatever the compute dtype.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from vit_jax import partition
from vit_jax.models import initializers
from vit_jax.models.attention import Core, attend, mix, weigh
from vit_jax.models.bias import RelativeBias
from vit_jax.models.dropout import Dropout, DropPath, drop
from vit_jax.models.norm import LayerNorm
from vit_jax.models.positions import Kind, PositionEmbedding, RelativePositions
from vit_jax.types import UserError

Gelu = Literal["tanh", "erf"]

TOKENS = "block_tokens"  # the name of a block's input, for policies of rematerialisation

# The values that a block returns besides its tokens, by name; empty unless requested.
Captured = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class BlockSettings:
    """Settings that all blocks of an encoder share; `VisionTransformer` explains the fields."""

    num_heads: int
    mlp_dim: int
    dtype: jnp.dtype
    dropout: float = 0.0
    attention_dropout: float = 0.0
    layer_scale: float = 0.0
    qk_norm: bool = False
    gelu: Gelu = "tanh"
    norm_eps: float = 1e-6
    attention: Core = "fused"
    lean: bool = False  # see `MlpBlock`

    @property
    def as_before(self) -> bool:
        """Whether LayerNorm and dropout are autodiff's, as with plain attention: so older runs keep their bits."""
        return self.attention == "xla"

    def norm(self, name: str) -> nn.Module:
        """A LayerNorm over the width."""
        if self.as_before:
            return nn.LayerNorm(epsilon=self.norm_eps, dtype=self.dtype, name=name)
        return LayerNorm(self.norm_eps, name=name)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def gelu(x: Float[Array, ...], kind: Gelu = "tanh") -> Float[Array, ...]:
    """GELU. The backward pass recomputes it from its input, which is kept in any case.

    Plain autodiff keeps four more arrays of the MLP's hidden size per block: a tenth of the training memory.

    Args:
      x: any shape.
      kind: `tanh` is the approximation that the released weights were trained with; `erf` the exact function, as in
        weights from PyTorch libraries.
    """
    return nn.gelu(x, approximate=kind == "tanh")


def _gelu_backward(kind: Gelu, x: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
    # On a CPU, XLA would find the forward pass's tanh here and keep it for the backward pass. On accelerators it computes tanh
    # anew inside its fusions, unless it is kept from fusing: with `jax.checkpoint` here, 7% more cycles of a B/16 step on v5e.
    x = jax.lax.platform_dependent(x, cpu=jax.lax.optimization_barrier, default=lambda x: x)
    return jax.vjp(functools.partial(nn.gelu, approximate=kind == "tanh"), x)[1](grad)


gelu.defvjp(lambda x, kind: (gelu(x, kind), x), _gelu_backward)


class MlpBlock(nn.Module):
    """Two dense layers with a GELU between them.

    Args:
      mlp_dim: hidden units.
      dropout: rate, applied after each dense layer.
      dtype: compute dtype.
      gelu: see `gelu`.
      lean: keep one array of the hidden size for the backward pass instead of two.
      recompute: see `Dropout`.
    """

    mlp_dim: int
    dropout: float
    dtype: jnp.dtype
    gelu: Gelu = "tanh"
    lean: bool = False
    recompute: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], *, train: bool) -> Float[Array, "b n d"]:
        dense = functools.partial(
            nn.Dense,
            dtype=self.dtype,
            kernel_init=initializers.xavier_uniform(),
            bias_init=initializers.normal(stddev=1e-6),
        )
        d = x.shape[-1]
        x = dense(self.mlp_dim, name="Dense_0")(x)
        hidden = Dropout(self.dropout, self.recompute)
        if self.lean:
            x = dense(d, name="Dense_1", dot_general=self.product(hidden.key(train)))(x)
        else:
            x = dense(d, name="Dense_1")(hidden(gelu(x, self.gelu), train))
        return Dropout(self.dropout, self.recompute)(x, train)

    def product(self, key: jax.Array | None) -> Callable[..., jax.Array]:
        """A matrix product whose left side passes GELU and dropout first, and is computed anew in the backward pass."""

        def product(x, kernel, dimensions, **options):
            def activate(x, kernel, key):
                hidden = drop(nn.gelu(x, approximate=self.gelu == "tanh"), key, self.dropout)
                return jax.lax.dot_general(hidden, kernel, dimensions, **options)

            return jax.checkpoint(activate)(x, kernel, key)

        return product


class MultiHeadDotProductAttention(nn.Module):
    """Multi-head attention (arXiv 2010.11929, appendix A); self-attention when both inputs are the same.

    Kernels are (d, heads, k) and (heads, k, d), initialised as the (d, d) matrices they flatten to.

    Args:
      settings: heads (must divide the width), dropout rate on the weights, LayerNorm of queries and keys (qk_norm,
        arXiv 2302.05442 section 2), compute dtype.
      relative: (gh, gw, whether token 0 is the class token) for relative positions; None for none.
    """

    settings: BlockSettings
    relative: tuple[int, int, bool] | None = None

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "b n d"],
        inputs: Float[Array, "b m d"],
        *,
        train: bool,
        weights: bool = False,
        bias: Float[Array, "1 heads n m"] | None = None,
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b heads n m"] | None]:
        """Returns the mixed tokens and, if `weights` asks for them, the attention weights (before dropout). `bias` is added to
        the logits."""
        d, heads, dtype = queries.shape[-1], self.settings.num_heads, self.settings.dtype
        if d % heads:
            raise UserError(f"width {d} is not divisible by {heads} heads; change model.width or model.num_heads")
        k = d // heads
        project = functools.partial(
            nn.DenseGeneral,
            features=(heads, k),
            dtype=dtype,
            kernel_init=initializers.xavier_uniform(),
        )
        q = project(name="query")(queries)  # b n heads k
        keys = project(name="key")(inputs)  # b m heads k
        values = project(name="value")(inputs)  # b m heads k
        if self.settings.qk_norm:
            q, keys = self.settings.norm("query_norm")(q), self.settings.norm("key_norm")(keys)
        q = q * (k**-0.5)
        dropout = Dropout(self.settings.attention_dropout, not self.settings.as_before)
        found = None
        if weights or self.relative or bias is not None or self.settings.attention == "xla":
            if self.relative:
                gh, gw, has_class_token = self.relative
                bias = RelativePositions((gh, gw), has_class_token, dtype, name="relative_positions")(q)
            found = weigh(q, keys, bias)
            if weights:  # a variable to take gradients of, for those who pass one
                found = self.perturb("weights", found)
            mixed = mix(dropout(found, train), values)
        else:
            mixed = attend(self.settings.attention, q, keys, values, dropout.rate, dropout.key(train))
        out = nn.DenseGeneral(
            features=d, axis=(-2, -1), dtype=dtype, kernel_init=initializers.xavier_uniform(), name="out"
        )(mixed)
        return out, found if weights else None


class LayerScale(nn.Module):
    """Multiplies each channel of a residual branch by a learned factor that starts small (arXiv 2103.17239, section 2)."""

    start: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        scale = self.param("scale", nn.initializers.constant(self.start), (x.shape[-1],), jnp.float32)
        return x * scale.astype(self.dtype)[None, None]


class EncoderBlock(nn.Module):
    """z' = MSA(LN(z)) + z;  z'' = MLP(LN(z')) + z' (arXiv 2010.11929, eqs. 2 and 3).

    Args:
      settings: the shared settings of all blocks.
      train: whether dropout and stochastic depth act.
      capture: any of `layers` (the block's output) and `attention` (its weights).
      positions: (kind, grid, has_class_token) of position embeddings that the block itself adds; None for none.
      relative: see `MultiHeadDotProductAttention`.
      biased: (gh, gw, whether token 0 is the class token) for a `RelativeBias` of this block's own; None for none.
    """

    settings: BlockSettings
    train: bool
    capture: tuple[str, ...] = ()
    positions: tuple[Kind, tuple[int, int], bool] | None = None
    relative: tuple[int, int, bool] | None = None
    biased: tuple[int, int, bool] | None = None

    @nn.compact
    def __call__(
        self,
        z: Float[Array, "b n d"],
        drop_rate: Float[Array, ""] | None = None,
        shared: Float[Array, "1 n d"] | Float[Array, "1 heads n n"] | None = None,
    ) -> tuple[Float[Array, "b n d"], Captured]:
        """Runs the block. `drop_rate` is its rate of stochastic depth. `shared` is what all blocks share: positions, which are
        added first, or (if it has four axes) a bias of the attention logits. None for none."""
        settings, z = self.settings, checkpoint_name(partition.constrain(z), TOKENS)
        if self.positions:
            shared = PositionEmbedding(*self.positions, settings.dtype, name="posembed_input")(z)
        bias = shared if shared is not None and shared.ndim == 4 else None
        if self.biased:
            bias = RelativeBias(self.biased[:2], self.biased[2], settings.num_heads, name="relative_bias")()
        z = z if shared is None or shared.ndim == 4 else z + shared
        y = settings.norm("LayerNorm_0")(z)
        attention = MultiHeadDotProductAttention(settings, self.relative, name="MultiHeadDotProductAttention_1")
        y, weights = attention(y, y, train=self.train, weights="attention" in self.capture, bias=bias)
        z = z + self.branch(Dropout(settings.dropout, not settings.as_before)(y, self.train), 0, drop_rate)
        y = settings.norm("LayerNorm_2")(z)
        sizes = settings.mlp_dim, settings.dropout, settings.dtype, settings.gelu, settings.lean
        mlp = MlpBlock(*sizes, recompute=not settings.as_before, name="MlpBlock_3")
        z = partition.constrain(z + self.branch(mlp(y, train=self.train), 1, drop_rate))
        captured = {"layers": z, "attention": weights}
        return z, {name: value for name, value in captured.items() if name in self.capture and value is not None}

    def branch(
        self, y: Float[Array, "b n d"], number: int, drop_rate: Float[Array, ""] | None
    ) -> Float[Array, "b n d"]:
        """Scales and drops a residual branch, as the options say, before it is added."""
        if self.settings.layer_scale:
            y = LayerScale(self.settings.layer_scale, self.settings.dtype, name=f"LayerScale_{number}")(y)
        return y if drop_rate is None else DropPath(name=f"DropPath_{number}")(y, drop_rate, self.train)


class AxialBlock(nn.Module):
    """A row-attention block, then a column-attention block: each patch sees its row, then its column.

    Args:
      settings: see `EncoderBlock`, which both halves are.
      train: see `EncoderBlock`.
      grid: (gh, gw) of the patches; there must be no other tokens.
      capture: `layers` (the output of both halves) and `attention` (only of the rows: (b gh, heads, gw, gw)).

    Source: arXiv 2010.11929 appendix D.6.
    """

    settings: BlockSettings
    train: bool
    grid: tuple[int, int]
    capture: tuple[str, ...] = ()

    @nn.compact
    def __call__(
        self, z: Float[Array, "b n d"], drop_rate: Float[Array, ""] | None = None, shared: None = None
    ) -> tuple[Float[Array, "b n d"], Captured]:
        """Runs both halves; see `EncoderBlock`. `shared` positions are not supported."""
        del shared
        gh, gw = self.grid
        b, n, d = z.shape
        rows = EncoderBlock(self.settings, self.train, self.capture, name="row")
        columns = EncoderBlock(self.settings, self.train, (), name="column")
        z, captured = rows(z.reshape(b * gh, gw, d), drop_rate)
        z = z.reshape(b, gh, gw, d).swapaxes(1, 2).reshape(b * gw, gh, d)
        z, _ = columns(z, drop_rate)
        z = z.reshape(b, gw, gh, d).swapaxes(1, 2).reshape(b, n, d)
        return z, {**captured, "layers": z} if "layers" in captured else captured
