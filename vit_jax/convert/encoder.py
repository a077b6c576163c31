"""Starts a model of one task from the encoder of another: a classifier from a masked model, or the reverse."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from vit_jax.convert import claims
from vit_jax.convert.checkpoint import Checkpoint

# Models whose encoders are one and the same ViT, and the beginnings of the names of all other parameters, heads aside.
SHARED = ("vit", "masked", "mae")
DECODER = ("mask_token", "decoder/")
SHARED_BIAS = "Transformer/relative_bias/rel_bias"
NORMS = ("Transformer/encoder_norm/", "fc_norm/")


def suit(source: Checkpoint, model: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint as one of another kind of model, whose encoder is the same.

    Args:
      source: the checkpoint.
      model: the model section of the config: its name, and what its decoder predicts.

    Returns:
      The checkpoint without its decoder, under the other name; as it is if nothing needs to change. One relative bias for all
      layers becomes one for each where the config says so: SimMIM pre-trains with the first and fine-tunes with the second.
    """
    name, theirs = model["name"], source.settings["name"]
    if not {name, theirs} <= set(SHARED):
        return source
    source = _spread_bias(source, model)
    if name == theirs and model.get("decoder", "pixels") == source.settings.get("decoder", "pixels"):
        return source
    left = [tensor for tensor in source.tensors if tensor.startswith(DECODER)]
    aside = {
        source.origin.get(tensor, tensor): f"decoder of the {theirs} model, which {name} has not" for tensor in left
    }
    fields = claims.fields_of(name)
    settings = {key: x for key, x in source.settings.items() if key in fields and key != "decoder"} | {"name": name}
    if name != "mae" and settings.get("positions") == "sincos_mae":
        settings["positions"] = "learned_1d"  # MAE's table, and trained from here on, as its authors fine-tune
    has_norm = any(tensor.startswith(NORMS) for tensor in source.tensors)
    return dataclasses.replace(
        source,
        tensors={tensor: x for tensor, x in source.tensors.items() if tensor not in left},
        settings=settings,
        aside=source.aside | aside,
        without=DECODER if has_norm else (*DECODER, *NORMS),
    )


def _spread_bias(source: Checkpoint, model: Mapping[str, Any]) -> Checkpoint:
    """Gives each layer a copy of the relative bias that all layers share, if the config has one for each."""
    asked = (model.get("positions"), model.get("positions_at")) == ("relative_bias", "every_layer")
    if not asked or SHARED_BIAS not in source.tensors:
        return source
    tensors = dict(source.tensors)
    table = tensors.pop(SHARED_BIAS)
    names = [f"Transformer/encoderblock_{i}/relative_bias/rel_bias" for i in range(source.settings["depth"])]
    origin = source.origin | dict.fromkeys(names, source.origin.get(SHARED_BIAS, SHARED_BIAS))
    settings = source.settings | {"positions_at": "every_layer"}
    return dataclasses.replace(source, tensors=tensors | dict.fromkeys(names, table), settings=settings, origin=origin)
