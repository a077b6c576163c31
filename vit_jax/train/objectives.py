"""Objectives: functions from a model's outputs and a batch to each example's loss and to further logged values.

A new task is a new entry in `OBJECTIVES`: `make(**options) -> Objective`. The options are the keys of the config's section.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from vit_jax.train import detection
from vit_jax.types import Batch, Outputs, UserError

Values = Callable[[Outputs, Batch], dict[str, Float[Array, " b"]]]


def _count_examples(batch: Batch) -> Float[Array, " b"]:
    return batch.mask


def _as_it_is(batch: Batch) -> Batch:
    return batch


@dataclasses.dataclass(frozen=True)
class Objective:
    """A loss and the facts about it that the training step needs.

    Args:
      values: (outputs, batch) -> {name: (b,)}; "loss" is minimised, the others are logged under their names.
      weight: batch -> (b,), the weight of each example in the mean; 0 for padding. By default the mask.
      linear: whether the loss is linear in the target, which mixup and CutMix require.
      reads: fields of `Outputs`, or keys of its `extra`, that `values` reads; `check_reads` compares them with the model.
      target: kinds of target that it reads, classes of `vit_jax.targets`; empty for any.
      prepare: batch -> batch, on the whole batch before it is cut into micro-batches: for normalisers that many examples share.
      over: mesh -> `values` on that mesh, for a loss that must not leave its split to XLA; None for any other.
    """

    values: Values
    weight: Callable[[Batch], Float[Array, " b"]] = _count_examples
    linear: bool = False
    reads: frozenset[str] = frozenset({"logits"})
    target: tuple[str, ...] = ()
    prepare: Callable[[Batch], Batch] = _as_it_is
    over: Callable[[Mesh], Values] | None = None

    def on_mesh(self, mesh: Mesh) -> Objective:
        """The objective for a mesh."""
        return dataclasses.replace(self, values=self.over(mesh), over=None) if self.over else self

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


def softmax_cross_entropy(*, label_smoothing: float = 0.0) -> Objective:
    """Cross-entropy of the softmax over classes: fine-tuning, and pre-training on small label sets.

    Args:
      label_smoothing: share of the target spread evenly over all classes, in [0, 1).
    """

    def values(outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
        targets = optax.smooth_labels(_one_hot(outputs, batch), label_smoothing)
        return {"loss": optax.softmax_cross_entropy(outputs.logits, targets), "accuracy": _hits(outputs, batch)}

    return Objective(values, linear=True, target=("ClassId",))


def sigmoid_cross_entropy(*, label_smoothing: float = 0.0, target_margin: float = 0.0) -> Objective:
    """Binary cross-entropy of each class, summed over classes: pre-training on ImageNet-21k and JFT.

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

    return Objective(values, linear=True, target=("ClassId",))


def _one_hot(outputs: Outputs, batch: Batch) -> Float[Array, "b c"]:
    return jax.nn.one_hot(batch.target, outputs.logits.shape[-1])


def _hits(outputs: Outputs, batch: Batch) -> jax.Array:
    return (jnp.argmax(outputs.logits, axis=-1) == batch.target).astype(jnp.float32)


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
    "detection": set_prediction,
}
