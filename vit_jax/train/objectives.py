"""Objectives: functions from a model's outputs and a batch to each example's loss and to further logged values.

A new task is a new entry in `OBJECTIVES`: `make(**options) -> Objective`. The options are the keys of the config's section.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from vit_jax.types import Batch, Outputs, UserError


def _count_examples(batch: Batch) -> Float[Array, " b"]:
    return batch.mask


@dataclasses.dataclass(frozen=True)
class Objective:
    """A loss and the facts about it that the training step needs.

    Args:
      values: (outputs, batch) -> {name: (b,)}; "loss" is minimised, the others are logged under their names.
      weight: batch -> (b,), the weight of each example in the mean; 0 for padding. By default the mask.
      linear: whether the loss is linear in the target, which mixup and CutMix require.
      reads: fields of `Outputs`, or keys of its `extra`, that `values` reads; `check_reads` compares them with the model.
      target: kinds of target that it reads, classes of `vit_jax.targets`; empty for any.
    """

    values: Callable[[Outputs, Batch], dict[str, Float[Array, " b"]]]
    weight: Callable[[Batch], Float[Array, " b"]] = _count_examples
    linear: bool = False
    reads: frozenset[str] = frozenset({"logits"})
    target: tuple[str, ...] = ()

    def check_reads(self, outputs: Outputs, *, objective: str, model: str) -> None:
        """Refuses a model that does not return the outputs which the loss reads.

        Args:
          outputs: the model's outputs, as arrays or shapes.
          objective, model: their names, for the message.

        Raises:
          UserError: names the objective, the model, every missing output and the existing ones.
        """
        there = {name for name, x in outputs._asdict().items() if name != "extra" and x is not None} | set(
            outputs.extra
        )
        if missing := sorted(self.reads - there):
            raise UserError(
                f"config.objective.name={objective} reads {' and '.join(missing)} of the model's outputs, and "
                f"config.model.name={model} as configured returns {', '.join(sorted(there))}; choose another objective or model"
            )


def softmax_cross_entropy(*, label_smoothing: float = 0.0, class_weights: tuple[float, ...] = ()) -> Objective:
    """Cross-entropy of the softmax over classes: fine-tuning, and pre-training on small label sets.

    Args:
      label_smoothing: share of the target spread evenly over all classes, in [0, 1).
      class_weights: weight of each class in the mean over a batch, which is divided by the sum of the weights, as torch does;
        empty for none. Every logged mean has the same weights.
    """
    if any(weight < 0 for weight in class_weights) or (class_weights and not any(class_weights)):
        raise UserError(f"objective.class_weights is {class_weights}; expected a weight of 0 or more for each class")

    def weight(batch: Batch) -> jax.Array:
        return batch.mask * jnp.asarray(class_weights, jnp.float32)[batch.target]

    def values(outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
        targets = optax.smooth_labels(_one_hot(outputs, batch), label_smoothing)
        if class_weights and len(class_weights) != outputs.logits.shape[-1]:
            raise UserError(
                f"objective.class_weights has {len(class_weights)} weights, and the model {outputs.logits.shape[-1]} classes; "
                "give one for each, in the order of the classes"
            )
        return {"loss": optax.softmax_cross_entropy(outputs.logits, targets), "accuracy": _hits(outputs, batch)}

    if class_weights:  # of a mixed example, two classes' weights would compete
        return Objective(values, weight, target=("ClassId",))
    return Objective(values, linear=True, target=("ClassId",))


def sigmoid_cross_entropy(*, label_smoothing: float = 0.0, target_margin: float = 0.0) -> Objective:
    """Binary cross-entropy of each class, summed over classes: pre-training on ImageNet-21k and JFT, and images with any number
    of labels, of which an accurate prediction is one.

    The sum, not the mean: with 21,843 classes the mean would shrink the gradient as many times.

    Args:
      label_smoothing: share of the target spread evenly over all classes, in [0, 1).
      target_margin: distance of each class's own target, 0 or 1, from the ends of [0, 1]: 1e-4 in the paper's ImageNet runs. Each
        class is a separate decision here, so unlike smoothing this does not depend on the number of classes.

    Source: the loss of the released ImageNet-21k models (arXiv 2010.11929), as their authors describe it.
    """

    def values(outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
        targets = optax.smooth_labels(_one_hot(outputs, batch), label_smoothing)
        targets = targets * (1 - 2 * target_margin) + target_margin if target_margin else targets
        loss = optax.sigmoid_binary_cross_entropy(outputs.logits, targets).sum(axis=-1)
        return {"loss": loss, "accuracy": _hits(outputs, batch)}

    return Objective(values, linear=True, target=("ClassId", "ClassSet"))


def regression(*, loss: Literal["mse", "mae"] = "mse") -> Objective:
    """Error of numbers, a mean over an example's columns; `mse` and `mae` are both logged. Bring the columns to a mean near 0 and
    a deviation near 1: the outputs start at 0.

    Args:
      loss: `mse` the squared error, or `mae` the absolute one, in which outliers weigh less.
    """

    def values(outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
        error = outputs.logits - batch.target
        errors = {"mse": jnp.square(error).mean(axis=-1), "mae": jnp.abs(error).mean(axis=-1)}
        return {"loss": errors[loss], **errors}

    return Objective(values, target=("Values",))


def _one_hot(outputs: Outputs, batch: Batch) -> Float[Array, "b c"]:
    if batch.target.ndim == 2:  # sets of classes
        return jnp.pad(batch.target, ((0, 0), (0, outputs.logits.shape[-1] - batch.target.shape[-1]))).astype(
            jnp.float32
        )
    return jax.nn.one_hot(batch.target, outputs.logits.shape[-1])


def _hits(outputs: Outputs, batch: Batch) -> jax.Array:
    best = jnp.argmax(outputs.logits, axis=-1)
    if batch.target.ndim == 2:
        return jnp.take_along_axis(_one_hot(outputs, batch), best[:, None], axis=1)[:, 0]
    return (best == batch.target).astype(jnp.float32)


OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "softmax": softmax_cross_entropy,
    "sigmoid": sigmoid_cross_entropy,
    "regression": regression,
}
