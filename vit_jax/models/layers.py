"""The layer of its model that each parameter belongs to, counted from the image: rates that depend on depth, and patterns that
name parameters, mean the same whether a model's blocks are looped or scanned."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict

BLOCK = re.compile(r"(?:Transformer/encoderblock|MixerBlock)_(\d+)/")
STACK = "Transformer/encoderblock/"
# Everything before the first block: patches and their stem, tokens, positions.
INPUT = re.compile(
    r"(cls|mask_token)$|(embedding|stem|conv_root|gn_root|block\d+|Transformer/posembed_input)/|Transformer/reg"
)


class Slice(NamedTuple):
    """A parameter as a looped model has it.

    Args:
      name: its name there, `Transformer/encoderblock_3/MlpBlock_3/Dense_0/kernel`.
      layer: 0 for what comes before the blocks, i + 1 for block i, and one more than the number of blocks for what follows them.
    """

    name: str
    layer: int


def find_layers(params: Any) -> dict[str, tuple[Slice, ...]]:
    """The slices of each parameter: one, or one for each layer of a stack.

    Args:
      params: tree of arrays or shapes.

    Returns:
      {name in the tree: slices}; a model without blocks has every parameter in layer 0.

    Source: `get_layer_id_for_vit` of MAE's and BEiT's fine-tuning.
    """
    flat = {name: x.shape for name, x in flatten_dict(params, sep="/").items()}
    names = {
        name: [name.replace(STACK, f"{STACK[:-1]}_{i}/") for i in range(shape[0])] if name.startswith(STACK) else [name]
        for name, shape in flat.items()
    }
    depth = max((int(match[1]) + 1 for ns in names.values() if (match := BLOCK.match(ns[-1]))), default=-1)
    return {name: tuple(Slice(one, _layer(one, depth)) for one in ns) for name, ns in names.items()}


def _layer(name: str, depth: int) -> int:
    if match := BLOCK.match(name):
        return int(match[1]) + 1
    return 0 if INPUT.match(name) else depth + 1
