"""Objectives: functions from a model's outputs and a batch to each example's loss and to further logged values.

A new task is a new entry in `OBJECTIVES`: `make(**options) -> Objective`. The options are the keys of the config's section.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from vit_jax.train import masked as tasks
from vit_jax.train import masking
from vit_jax.train.masking import Drawn, PatchGrid
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
      draw: keys (b,) -> what is drawn for each example before the forward pass; None for nothing.
      counts: batch -> (b, k), how often each of k classes is among an example's targets; None if the targets are no classes.
      picture: (outputs, batch) -> {caption: (b, h, w, c) in [-1, 1]}, pictures of what was hidden and predicted.
    """

    values: Callable[[Outputs, Batch], dict[str, Float[Array, " b"]]]
    weight: Callable[[Batch], Float[Array, " b"]] = _count_examples
    linear: bool = False
    reads: frozenset[str] = frozenset({"logits"})
    draw: Callable[[jax.Array], Drawn] | None = None
    counts: Callable[[Batch], Float[Array, "b k"]] | None = None
    picture: Callable[[Outputs, Batch], dict[str, jax.Array]] | None = None

    def run(self, forward: Callable[..., Outputs], params: Any, image: Any, drawn: Drawn, **options: Any) -> Outputs:
        """The outputs of a model for a batch of images and what was drawn for them."""
        outputs = forward(params, image, **options, **drawn.inputs)
        return outputs._replace(extra={**outputs.extra, **drawn.extra}) if drawn.extra else outputs

    def run_fixed(self, forward: Callable[..., Outputs], params: Any, image: Any) -> Outputs:
        """The same in evaluation: what is drawn for an image depends on the image alone."""
        drawn = self.draw(masking.keys_of_images(image)) if self.draw else Drawn()
        return self.run(forward, params, image, drawn)

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

    return Objective(values, linear=True)


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

    return Objective(values, linear=True)


def _one_hot(outputs: Outputs, batch: Batch) -> Float[Array, "b c"]:
    return jax.nn.one_hot(batch.target, outputs.logits.shape[-1])


def _hits(outputs: Outputs, batch: Batch) -> jax.Array:
    return (jnp.argmax(outputs.logits, axis=-1) == batch.target).astype(jnp.float32)


def simmim(*, grid: PatchGrid, mask_patch: tuple[int, int] = (32, 32), ratio: float = 0.6) -> Objective:
    """L1 between the pixels of hidden patches and their prediction: SimMIM (arXiv 2111.09886), as transformers computes it.

    Logs `baseline` beside it: the loss of the mean colour of the image's visible patches.

    Args:
      grid: the model's patches; supplied by the program.
      mask_patch: (h, w) of the squares that are hidden, pixels: several of the model's patches each.
      ratio: share of the squares that is hidden, rounded up.
    """
    task = tasks.simmim(grid, mask_patch, ratio)
    return Objective(**task._asdict(), reads=frozenset({"pixels"}))


def masked_autoencoding(*, grid: PatchGrid, norm_pix: bool = True) -> Objective:
    """Squared error of the hidden patches of an MAE, whose model hides `model.mask_ratio` of them (arXiv 2111.06377).

    Logs `baseline` beside it: the loss of the mean colour of the image's visible patches, or with `norm_pix` of each patch's own
    mean, which is 1 but for flat patches.

    Args:
      grid: the model's patches; supplied by the program.
      norm_pix: predict each patch with its own mean and deviation taken off.
    """
    task = tasks.masked_autoencoding(grid, norm_pix)
    return Objective(**task._asdict(), reads=frozenset({"patches", "hidden"}))


def masked_patch_prediction(
    *,
    grid: PatchGrid,
    target: Literal["mean_colour", "patch_4x4", "pixels"] = "mean_colour",
    corrupt: float = 0.5,
    exact: bool = True,
    masked: float = 0.8,
    replaced: float = 0.1,
) -> Objective:
    """The ViT paper's self-supervision (arXiv 2010.11929, appendix B.1.2): predicts patches whose embedding is corrupted.

    The paper leaves much open. Ours: the share is exact in each image; another patch is of the same image, and never the same
    patch; a mean colour's class is 64 r + 8 g + b, with 8 equal levels a channel; 4x4 colours are means of areas; `pixels` are in
    [-1, 1], and their loss is the mean square. Colours are of the image as cropped, flipped and augmented.

    Args:
      grid: the model's patches; supplied by the program.
      target: the patch's mean colour in 3 bits a channel; the same of 4x4 parts of it; or all its pixels.
      corrupt: share of the patches that is corrupted, and predicted.
      exact: whether that share is exact in each image; else each patch is drawn for itself.
      masked, replaced: shares of the corrupted patches that become the mask token, and another patch; the rest is kept.
    """
    task = tasks.masked_patch_prediction(grid, target, corrupt, exact, masked, replaced)
    return Objective(**task._asdict(), reads=frozenset({target}))


OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "softmax": softmax_cross_entropy,
    "sigmoid": sigmoid_cross_entropy,
    "simmim": simmim,
    "mae": masked_autoencoding,
    "patches": masked_patch_prediction,
}
