"""Objectives: functions from a model's outputs and a batch to each example's loss and to further logged values.

A new task is a new entry in `OBJECTIVES`: `make(**options) -> Objective`. The options are the keys of the config's section.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from vit_jax.train import detection
from vit_jax.train.masked import masked_autoencoding, masked_patch_prediction, simmim
from vit_jax.train.objective import Objective as Objective
from vit_jax.types import Batch, Outputs, UserError


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
        if class_weights and len(class_weights) != (c := outputs.logits.shape[-1]):
            raise UserError(f"objective.class_weights has {len(class_weights)} weights, and the model {c} classes")
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
    """Error of numbers, a mean over an example's columns. Bring the columns to a mean near 0 and a deviation near 1.

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


def set_prediction(
    *, no_object: float = 0.1, box_weight: float = 5.0, giou_weight: float = 2.0, class_weight: float = 1.0
) -> Objective:
    """The loss of DETR and YOLOS: detections are matched to objects one to one, at least cost; see `train.detection`.

    Args:
      no_object: weight of the queries without an object in the cross-entropy; 0.1 as published for 100 queries.
      box_weight, giou_weight, class_weight: of the three parts, in the loss and in the cost of a match.

    Source: arXiv 2005.12872, section 3.1.
    """
    weights = detection.Weights(no_object, class_weight, box_weight, giou_weight)
    return Objective(
        detection.make_values(weights),
        reads=frozenset({"class_logits", "boxes"}),
        target=("Boxes",),
        prepare=detection.count_objects,
        over=lambda mesh: detection.make_values(weights, mesh),
    )


OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "softmax": softmax_cross_entropy,
    "sigmoid": sigmoid_cross_entropy,
    "simmim": simmim,
    "mae": masked_autoencoding,
    "patches": masked_patch_prediction,
    "regression": regression,
    "detection": set_prediction,
}
