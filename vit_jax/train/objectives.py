"""What is minimised. An objective maps a model's outputs and a batch to a loss per example and what to log of it.

A new task is a new entry in `OBJECTIVES`: `make(**options) -> objective(outputs, batch) -> {"loss": (b,), ...}`.
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
        targets = optax.smooth_labels(_one_hot(outputs, batch), label_smoothing)
        return {"loss": optax.softmax_cross_entropy(outputs.logits, targets), "accuracy": _hits(outputs, batch)}

    return objective


def sigmoid_cross_entropy(*, label_smoothing: float = 0.0, target_margin: float = 0.0) -> Objective:
    """Binary cross-entropy of each class, summed over classes: pre-training on ImageNet-21k and JFT.

    The sum, not the mean: with 21,843 classes the mean would shrink the gradient as many times.

    Args:
      label_smoothing: share of the target spread evenly over all classes, in [0, 1).
      target_margin: how far each class's own target, 0 or 1, lies inside [0, 1]: 1e-4 in the paper's ImageNet runs. Each class
        is a question of its own here, so that unlike smoothing this does not depend on their number.

    Source: the loss of the released ImageNet-21k models (arXiv 2010.11929), as their authors describe it.
    """

    def objective(outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
        targets = optax.smooth_labels(_one_hot(outputs, batch), label_smoothing)
        targets = targets * (1 - 2 * target_margin) + target_margin if target_margin else targets
        loss = optax.sigmoid_binary_cross_entropy(outputs.logits, targets).sum(axis=-1)
        return {"loss": loss, "accuracy": _hits(outputs, batch)}

    return objective


def _one_hot(outputs: Outputs, batch: Batch) -> Float[Array, "b c"]:
    return jax.nn.one_hot(batch.target, outputs.logits.shape[-1])


def _hits(outputs: Outputs, batch: Batch) -> jax.Array:
    return (jnp.argmax(outputs.logits, axis=-1) == batch.target).astype(jnp.float32)


OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "softmax": softmax_cross_entropy,
    "sigmoid": sigmoid_cross_entropy,
}
