"""Gradients of a class's score with respect to attention weights, which say what of the attention counts for that class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import tree_leaves_with_path

from vit_jax.models.base import ImageModel

Layers = tuple[jax.Array, ...]  # (b, heads, n, n) of each layer


def class_gradients(
    model: ImageModel, params: Mapping[str, Any], images: jax.Array, classes: jax.Array
) -> tuple[Layers, Layers, Layers]:
    """Attention weights, and the gradients of the logits of a class of each image with respect to them.

    Args:
      model: a classifier whose blocks are not scanned, and which captures attention.
      params: its parameters.
      images: float (b, h, w, channels), as the model takes them.
      classes: int (b,).

    Returns:
      (attention, gradients, probe): the first two are sequences over layers of (b, heads, n, n); `probe` has the same two of a
      MAP head's probe, (b, heads, tokens without registers), and is empty without one.
    """

    def run(variables: Mapping[str, Any]) -> Any:
        return model.apply({"params": params, **variables}, images, capture=("attention",))

    def shapes(key: jax.Array) -> Any:
        return model.init(key, images, capture=("attention",))["perturbations"]

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(shapes, jax.random.key(0)))

    def score(added: Any) -> tuple[jax.Array, tuple[Layers, jax.Array | None]]:
        outputs = run({"perturbations": added})
        score = jnp.take_along_axis(outputs.logits, classes[:, None], axis=1).sum()
        return score, (outputs.attention, outputs.extra.get("probe"))

    gradients, (attention, probe) = jax.grad(score, has_aux=True)(zeros)
    by_layer = {_layer_of(path): leaf for path, leaf in tree_leaves_with_path(gradients)}
    of_layers = tuple(by_layer[layer] for layer in range(len(attention)))
    return attention, of_layers, () if probe is None else (probe, by_layer[-1][:, :, 0])


def _layer_of(path: tuple[Any, ...]) -> int:
    """The number of the block that a perturbation belongs to; -1 for a MAP head."""
    return next((int(end) for key in path if (end := str(key.key).rpartition("encoderblock_")[2]).isdigit()), -1)
