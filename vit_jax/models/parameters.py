"""The parts of a model's parameters that can be looked at by themselves: the filters of its first layer, and its positions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from vit_jax.models.base import ImageModel
from vit_jax.models.bias import bias_index
from vit_jax.models.build import unstack_layers
from vit_jax.models.detection import Yolos
from vit_jax.models.positions import relative_index, sincos_2d, sincos_centred

LAYER = re.compile(r"Transformer/encoderblock_(\d+)/")


class Positions(NamedTuple):
    """What a model knows about the places of its patches.

    Args:
      kind: `vectors`, (n, d), one for each patch; `offsets`, (offsets, d), one for each offset between patches; or `bias`,
        (offsets,), of the attention's logits, a mean over heads.
      tables: arrays of that kind: one, or one for each layer.
      offset: int (n, n), the entry of each (query, key); None for vectors.
    """

    kind: str
    tables: list[np.ndarray]
    offset: np.ndarray | None = None


def first_filters(model: ImageModel, params: Mapping[str, Any]) -> np.ndarray:
    """The filters that see the image: (h, w, channels, features)."""
    return np.asarray(params[model.first_layer]["kernel"])


def find_positions(model: ImageModel, params: Mapping[str, Any], grid: tuple[int, int]) -> Positions | None:
    """The positions of a model's patches; None for a model without any.

    Args:
      model: the model.
      params: its parameters.
      grid: (gh, gw) of the stored positions.
    """
    (gh, gw), kind = grid, getattr(model, "positions", "none")
    n = gh * gw
    if kind in ("sincos_2d", "sincos_centred"):
        width = int(getattr(model, "width", 0))
        is_centred = kind == "sincos_centred" or isinstance(model, Yolos)
        return Positions("vectors", [sincos_centred(grid, grid, width) if is_centred else sincos_2d(grid, width)])
    flat = {name: np.asarray(x) for name, x in flatten_dict(dict(params), sep="/").items()}
    tensors = {name: x for name, x in unstack_layers(flat).items() if name.startswith("Transformer/")}

    def layers(end: str) -> list[np.ndarray]:
        """The tensors of that name, in the order of their layers."""
        found = {
            int(match[1]) if (match := LAYER.match(name)) else -1: x
            for name, x in tensors.items()
            if name.endswith(end)
        }
        return [x for _, x in sorted(found.items())]

    if tables := layers("/pos_embedding"):
        return Positions("vectors", [x.reshape(-1, x.shape[-1])[-n:] for x in tables])
    if columns := layers("/pos_embedding_x"):
        halves = zip(columns, layers("/pos_embedding_y"), strict=True)
        both = [(np.broadcast_to(x[0], (gh, gw, x.shape[-1])), np.repeat(y[0][:, None], gw, axis=1)) for x, y in halves]
        return Positions("vectors", [np.concatenate(pair, axis=-1).reshape(n, -1) for pair in both])
    if tables := layers("/rel_embedding"):
        return Positions("offsets", [x.reshape(len(x), -1) for x in tables], relative_index(n, has_class_token=False))
    if tables := layers("/rel_bias"):
        return Positions("bias", [x.mean(axis=-1) for x in tables], bias_index(grid, has_class_token=False))
    return None
