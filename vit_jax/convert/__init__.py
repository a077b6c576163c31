"""Checkpoints in and out: `load_model` is the door, `source` opens any format, `adapt` fits it to a model, `save` writes."""

from vit_jax.convert.load import load_model

__all__ = ["load_model"]
