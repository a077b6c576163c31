"""What is minimised. An objective maps a model's outputs and a batch to a loss per example and what to log of it.

A new task is a new entry in `OBJECTIVES`: `make(**options) -> objective(outputs, batch) -> {"loss": (b,), ...}`.

Called by: run (to build one), train.step, evals.classification (the loss it reports).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from vit_jax.types import Batch, Outputs

# Values per example, (b,) each; "loss" is the one that is minimised, the others are logged as they are named.
Objective = Callable[[Outputs, Batch], dict[str, Float[Array, " b"]]]


def softmax_cross_entropy(*, label_smoothing: float = 0.0) -> Objective:
    """Cross-entropy of the softmax over classes: fine-tuning, and pre-training on small label sets.

    Args:
      label_smoothing: share of the target spread evenly over all classes, in [0, 1).
    """

    def objective(outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
        targets = jax.nn.one_hot(batch.label, outputs.logits.shape[-1])  # b c
        targets = optax.smooth_labels(targets, label_smoothing)
        return {"loss": optax.softmax_cross_entropy(outputs.logits, targets), "accuracy": _hits(outputs, batch)}

    return objective


def sigmoid_cross_entropy(*, label_smoothing: float = 0.0) -> Objective:
    """Binary cross-entropy of each class, summed over classes: pre-training on ImageNet-21k and JFT.

    The sum, not the mean: with 21,843 classes the mean would shrink the gradient as many times.

    Args:
      label_smoothing: share of the target spread evenly over all classes, in [0, 1).

    Source: the loss of the released ImageNet-21k models (arXiv 2010.11929), as their authors describe it.
    """

    def objective(outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
        targets = jax.nn.one_hot(batch.label, outputs.logits.shape[-1])  # b c
        targets = optax.smooth_labels(targets, label_smoothing)
        loss = optax.sigmoid_binary_cross_entropy(outputs.logits, targets).sum(axis=-1)
        return {"loss": loss, "accuracy": _hits(outputs, batch)}

    return objective


def _hits(outputs: Outputs, batch: Batch) -> jax.Array:
    return (jnp.argmax(outputs.logits, axis=-1) == batch.label).astype(jnp.float32)


OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "softmax": softmax_cross_entropy,
    "sigmoid": sigmoid_cross_entropy,
}
