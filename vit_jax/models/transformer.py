"""The whole encoder of a Vision Transformer: positions, registers and a stack of blocks, looped or scanned."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vit_jax import partition
from vit_jax.models import initializers
from vit_jax.models.attention import MIXED, WEIGHTS
from vit_jax.models.bias import RelativeBias
from vit_jax.models.dropout import Dropout
from vit_jax.models.encoder import TOKENS, AxialBlock, BlockSettings, EncoderBlock
from vit_jax.models.positions import Kind, Place, PositionEmbedding

Remat = Literal["none", "block", "dots", "offload"]
POLICIES = jax.checkpoint_policies


def recompute(block: type[nn.Module], remat: Remat, *, prevent_cse: bool) -> type[nn.Module]:
    """A class of blocks whose backward pass computes some of their arrays anew; `VisionTransformer` explains `remat`."""
    policies: dict[str, Callable[..., Any] | None] = {
        "block": None,
        "dots": POLICIES.save_from_both_policies(
            POLICIES.dots_with_no_batch_dims_saveable, POLICIES.save_only_these_names(WEIGHTS, MIXED)
        ),
        "offload": POLICIES.save_and_offload_only_these_names(
            names_which_can_be_saved=[],
            names_which_can_be_offloaded=[TOKENS],
            offload_src="device",
            offload_dst="pinned_host",
        ),
    }
    return block if remat == "none" else nn.remat(block, prevent_cse=prevent_cse, policy=policies[remat])


class Encoder(nn.Module):
    """Positions, dropout, registers, `depth` blocks and the final LayerNorm; the `Transformer` of the released tree.

    Args:
      settings: settings of every block.
      depth: number of blocks.
      grid: (gh, gw) of the patches.
      has_class_token: whether token 0 is the class token.
      final_norm: whether a LayerNorm follows the last block.
      Others: see `VisionTransformer`.
    """

    settings: BlockSettings
    depth: int
    grid: tuple[int, int]
    has_class_token: bool
    positions: Kind
    positions_at: Place
    registers: int
    stochastic_depth: float
    axial: bool
    final_norm: bool
    scan: bool
    remat: Remat

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "b n d"],
        *,
        train: bool,
        capture: tuple[str, ...] = (),
        visible: Int[Array, "b k"] | None = None,
    ) -> tuple[Float[Array, "b m d"], dict[str, tuple]]:
        """Returns the encoded tokens without registers, and the captured values, one entry per block.

        `visible` names the patches that the blocks see; the others are removed after positions are added. None for all.
        """
        first = int(self.has_class_token)
        x, shared = self.add_positions(tokens)
        if visible is not None:
            patches = jnp.take_along_axis(x[:, first:], visible[..., None], axis=1)  # b k d
            x = jnp.concatenate([x[:, :first], patches], axis=1)
        x = Dropout(self.settings.dropout, not self.settings.as_before)(x, train)
        if self.registers:
            b, _, d = x.shape
            registers = self.param("registers", initializers.normal(stddev=0.02), (1, self.registers, d), jnp.float32)
            registers = jnp.broadcast_to(registers.astype(x.dtype), (b, self.registers, d))
            x = jnp.concatenate([x[:, :first], registers, x[:, first:]], axis=1)  # b 1+registers+n d
        rates = None
        if self.stochastic_depth:
            rates = self.stochastic_depth * jnp.arange(self.depth, dtype=jnp.float32) / max(self.depth - 1, 1)
        run = self.scan_blocks if self.scan else self.loop_blocks
        x, captured = run(x, rates, shared, train, capture)
        if self.registers:
            x = jnp.concatenate([x[:, :first], x[:, first + self.registers :]], axis=1)
        return self.settings.norm("encoder_norm")(x) if self.final_norm else x, captured

    def add_positions(
        self, x: Float[Array, "b n d"]
    ) -> tuple[Float[Array, "b n d"], Float[Array, "1 n d"] | Float[Array, "1 heads n n"] | None]:
        """Adds positions at the stem; or returns the positions, or the bias of the attention, that all blocks share."""
        if self.positions in ("none", "relative") or self.positions_at == "every_layer":
            return x, None
        if self.positions == "relative_bias":
            heads = self.settings.num_heads
            return x, RelativeBias(self.grid, self.has_class_token, heads, name="relative_bias")()
        table = PositionEmbedding(
            self.positions, self.grid, self.has_class_token, self.settings.dtype, name="posembed_input"
        )(x)
        return (x + table, None) if self.positions_at == "stem" else (x, table)

    def block(self, train: bool, capture: tuple[str, ...]) -> tuple[type[nn.Module], dict]:
        """The class of the blocks, and its fields."""
        kind: type[nn.Module] = AxialBlock if self.axial else EncoderBlock
        if partition.splits_params() and not self.is_initializing():
            # Inside remat and scan, so that a device holds the whole parameters of one layer at a time.
            gather = functools.partial(partition.gather_layer, dtype=self.settings.dtype)
            kind = nn.map_variables(kind, "params", gather)
        fields: dict = {"settings": self.settings, "train": train, "capture": capture}
        if self.axial:
            return kind, fields | {"grid": self.grid}
        if self.positions == "relative":
            fields["relative"] = (*self.grid, self.has_class_token)
        elif self.positions == "relative_bias":
            fields["biased"] = (*self.grid, self.has_class_token) if self.positions_at == "every_layer" else None
        elif self.positions != "none" and self.positions_at == "every_layer":
            fields["positions"] = (self.positions, self.grid, self.has_class_token)
        return kind, fields

    def loop_blocks(self, x, rates, shared, train, capture):
        """Runs the blocks in sequence, each with its own parameters: `encoderblock_0`, ..."""
        kind, fields = self.block(train, capture)
        kind = recompute(kind, self.remat, prevent_cse=True)
        kind = nn.jit(kind)  # traced once instead of once per layer; XLA inlines it
        captured: dict[str, tuple] = dict.fromkeys(capture, ())
        for layer in range(self.depth):
            rate = None if rates is None else rates[layer]
            x, values = kind(**fields, name=f"encoderblock_{layer}")(x, rate, shared)
            captured = {name: (*captured[name], value) for name, value in values.items()}
        return x, captured

    def scan_blocks(self, x, rates, shared, train, capture):
        """Runs the blocks as a loop in the compiled program, parameters stacked along a first axis: `encoderblock`."""
        kind, fields = self.block(train, capture)
        kind = recompute(kind, self.remat, prevent_cse=False)
        scanned = nn.scan(
            kind,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(nn.broadcast if rates is None else 0, nn.broadcast),
            length=self.depth,
        )
        x, values = scanned(**fields, name="encoderblock")(x, rates, shared)
        return x, {name: tuple(value) for name, value in values.items()}
