"""Checkpoints in and out: `load_model` is the entry point, `open` reads any format, `adapt` fits it to a model, `save` writes."""

from vit_jax.convert.load import load_model

__all__ = ["load_model"]
