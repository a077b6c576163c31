"""The Vision Transformer (arXiv 2010.11929, section 3, figure 1).

Called by: models.build.
"""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax.models import heads
from vit_jax.models.dropout import Dropout
from vit_jax.models.embedding import PatchEmbedding, PositionEmbedding
from vit_jax.models.encoder import EncoderBlock
from vit_jax.types import Outputs, UserError


class Encoder(nn.Module):
    """Position embeddings, dropout, `depth` blocks and the final LayerNorm; the `Transformer` of the released tree."""

    depth: int
    num_heads: int
    mlp_dim: int
    dropout: float
    attention_dropout: float
    remat: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n d"], *, train: bool) -> Float[Array, "b n d"]:
        x = PositionEmbedding(self.dtype, name="posembed_input")(tokens)
        x = Dropout(self.dropout)(x, train)
        block = nn.remat(EncoderBlock, static_argnums=(2,)) if self.remat else EncoderBlock
        block = nn.jit(block, static_argnums=(2,))  # traced once and not once per layer; XLA inlines it
        for layer in range(self.depth):
            x = block(
                self.num_heads,
                self.mlp_dim,
                self.dropout,
                self.attention_dropout,
                self.dtype,
                name=f"encoderblock_{layer}",
            )(x, train)
        return nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="encoder_norm")(x)


class VisionTransformer(nn.Module):
    """ViT for images of any (h, w) that the patch divides; the position embeddings fix (h, w) at initialisation.

    Args:
      num_classes: outputs of the head; 0 for no head (`Outputs.logits` is None).
      patch_size: (h, w) of a patch, pixels.
      width: token width d.
      depth: encoder blocks.
      mlp_dim: hidden units of each block's MLP.
      num_heads: attention heads per block.
      pool: `token` reads a class token, `gap` averages all tokens, `map` pools by attention. Only `token` has the class
        token and its position.
      representation_size: units of the tanh layer before the head (pre-training); 0 for none (fine-tuning).
      head_bias: initial bias of the head.
      dropout: rate after every dense layer but the qkv projections, and after adding positions (appendix B.1).
      attention_dropout: rate on attention weights; 0 in the paper.
      remat: recompute each block's activations in the backward pass: less memory, about a third more time.
      dtype: compute dtype; parameters, softmax, LayerNorm statistics, head and loss are float32 in either case.

    Source: arXiv 2010.11929, eqs. 1-4, table 1.
    """

    num_classes: int
    patch_size: tuple[int, int] = (16, 16)
    width: int = 768
    depth: int = 12
    mlp_dim: int = 3072
    num_heads: int = 12
    pool: Literal["token", "gap", "map"] = "token"
    representation_size: int = 0
    head_bias: float = 0.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    remat: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"

    @nn.compact
    def __call__(self, images: Float[Array, "b h w channels"], *, train: bool = False) -> Outputs:
        self._check()
        dtype = jnp.dtype(self.dtype)
        x = PatchEmbedding(self.width, self.patch_size, dtype, name="embedding")(images)
        b, gh, gw, d = x.shape
        x = x.reshape(b, gh * gw, d)  # b n d
        if self.pool == "token":
            token = self.param("cls", nn.initializers.zeros_init(), (1, 1, d), jnp.float32)
            x = jnp.concatenate([jnp.broadcast_to(token.astype(dtype), (b, 1, d)), x], axis=1)  # b 1+n d
        tokens = Encoder(
            self.depth,
            self.num_heads,
            self.mlp_dim,
            self.dropout,
            self.attention_dropout,
            self.remat,
            dtype,
            name="Transformer",
        )(x, train=train)
        if self.pool == "token":
            pooled = tokens[:, 0]
        elif self.pool == "gap":
            pooled = tokens.mean(axis=1)
        elif self.pool == "map":
            pooled = heads.MapHead(self.num_heads, self.mlp_dim, dtype, name="MAPHead_0")(tokens, train=train)
        else:
            raise UserError(f"model.pool is {self.pool!r}; expected token, gap or map")
        pre_logits = pooled
        if self.representation_size:
            pre_logits = jnp.tanh(heads.representation_layer(self.representation_size, dtype)(pooled))
        logits = None
        if self.num_classes:
            logits = heads.classifier(self.num_classes, self.head_bias)(pre_logits.astype(jnp.float32))
        return Outputs(tokens=tokens, pooled=pooled, pre_logits=pre_logits, logits=logits)

    def _check(self) -> None:
        """Raises UserError for sizes and rates that no model has."""
        sizes = {key: getattr(self, key) for key in ("width", "depth", "mlp_dim", "num_heads")}
        sizes["patch_size"] = min(self.patch_size)
        errors = [f"model.{key} is {value}; expected 1 or more" for key, value in sizes.items() if value < 1]
        rates = {key: getattr(self, key) for key in ("dropout", "attention_dropout")}
        errors += [f"model.{key} is {x}; expected at least 0 and below 1" for key, x in rates.items() if not 0 <= x < 1]
        if errors:
            raise UserError("\n".join(errors))
