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
      target: kinds of target that it reads, classes of `vit_jax.targets`; empty for any.
      draw: keys (b,) -> what is drawn for each example before the forward pass; None for nothing.
      counts: batch -> (b, k), how often each of k classes is among an example's targets; None if the targets are no classes.
      picture: (outputs, batch) -> {caption: (b, h, w, c) in [-1, 1]}, pictures of what was hidden and predicted.
    """

    values: Callable[[Outputs, Batch], dict[str, Float[Array, " b"]]]
    weight: Callable[[Batch], Float[Array, " b"]] = _count_examples
    linear: bool = False
    reads: frozenset[str] = frozenset({"logits"})
    target: tuple[str, ...] = ()
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

    # Of a mixed example, two classes' weights would compete.
    return Objective(values, weight if class_weights else _count_examples, not class_weights, target=("ClassId",))


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


def simmim(*, grid: PatchGrid, mask_patch: tuple[int, int] = (32, 32), ratio: float = 0.6) -> Objective:
    """L1 between the pixels of hidden patches and their prediction: SimMIM (arXiv 2111.09886), as transformers computes it.

    Logs `baseline` beside it: the loss of the mean colour of the image's visible patches.

    Args:
      grid: the model's patches; supplied by the program.
      mask_patch: (h, w) of the squares that are hidden, pixels: several of the model's patches each.
      ratio: share of the squares that is hidden, rounded up.
    """
    masking.check_cells(grid, mask_patch, ratio)

    def values(outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
        target, hidden = masking.to_patches(masking.to_range(batch.image), grid), outputs.extra["hidden"]
        guesses = {
            "loss": masking.to_patches(outputs.extra["pixels"], grid),
            "baseline": masking.mean_colour(target, ~hidden),
        }
        # transformers adds 1e-5 to the number of hidden pixels.
        epsilon = 1e-5 / (grid.patch[0] * grid.patch[1])
        return {
            name: masking.mean_over(jnp.abs(target - guess).mean(axis=(2, 3)), hidden, epsilon)
            for name, guess in guesses.items()
        }

    def draw(keys: jax.Array) -> Drawn:
        hidden = {"hidden": masking.hide_cells(keys, grid, mask_patch, ratio)}
        return Drawn(hidden, hidden)

    def picture(outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
        target = masking.to_patches(masking.to_range(batch.image), grid)
        return masking.show(target, masking.to_patches(outputs.extra["pixels"], grid), outputs.extra["hidden"], grid)

    return Objective(values, reads=frozenset({"pixels"}), draw=draw, picture=picture)


def masked_autoencoding(*, grid: PatchGrid, norm_pix: bool = True) -> Objective:
    """Squared error of the hidden patches of an MAE, whose model hides `model.mask_ratio` of them (arXiv 2111.06377).

    Logs `baseline` beside it: the loss of the mean colour of the image's visible patches, or with `norm_pix` of each patch's own
    mean, which is 1 but for flat patches.

    Args:
      grid: the model's patches; supplied by the program.
      norm_pix: predict each patch with its own mean and deviation taken off.
    """

    def targets(batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        patches = masking.to_patches(masking.to_range(batch.image), grid)
        normal, mean, deviation = masking.normalise_patches(patches)
        return (patches, normal, mean, deviation) if norm_pix else (patches, patches, mean, deviation)

    def values(outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
        _, target, *_ = targets(batch)
        hidden, predicted = outputs.extra["hidden"], outputs.extra["patches"].reshape(target.shape)
        guesses = {"loss": predicted, "baseline": 0.0 if norm_pix else masking.mean_colour(target, ~hidden)}
        return {
            name: masking.mean_over(jnp.square(target - guess).mean(axis=(2, 3)), hidden)
            for name, guess in guesses.items()
        }

    def picture(outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
        patches, _, mean, deviation = targets(batch)
        predicted = outputs.extra["patches"].reshape(patches.shape)
        predicted = predicted * deviation + mean if norm_pix else predicted
        note = ", given each patch's own mean and deviation" if norm_pix else ""
        return masking.show(patches, predicted, outputs.extra["hidden"], grid, note)

    reads = frozenset({"patches", "hidden"})
    return Objective(
        values, reads=reads, draw=lambda keys: Drawn({"noise": masking.noise(keys, grid.size)}), picture=picture
    )


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
    masking.check_corruption(grid, target, corrupt, masked, replaced)
    parts = {"mean_colour": 1, "patch_4x4": 4, "pixels": 0}[target]

    def values(outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
        corrupted, predicted = outputs.extra["corrupted"], outputs.extra[target]
        if not parts:
            patches = masking.to_patches(masking.to_range(batch.image), grid)
            guesses = {
                "loss": masking.to_patches(predicted, grid),
                "baseline": masking.mean_colour(patches, ~corrupted),
            }
            errors = {name: jnp.square(patches - guess).mean(axis=(2, 3)) for name, guess in guesses.items()}
        else:
            classes = masking.colours_of(batch.image, grid, parts)  # b n parts2
            logits = predicted.reshape(*classes.shape, -1)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, classes)
            hits = (jnp.argmax(logits, axis=-1) == classes).astype(jnp.float32)
            errors = {"loss": loss.mean(axis=2), "accuracy": hits.mean(axis=2)}
        return {name: masking.mean_over(error, corrupted) for name, error in errors.items()}

    def counts(batch: Batch) -> jax.Array:
        classes = masking.colours_of(batch.image, grid, parts).reshape(batch.image.shape[0], -1)
        return jax.vmap(lambda row: jnp.bincount(row, length=masking.LEVELS**3))(classes).astype(jnp.float32)

    def picture(outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
        predicted, extra = outputs.extra[target], outputs.extra
        if parts:
            logits = predicted.reshape(*predicted.shape[:2], parts * parts, -1)
            predicted = masking.paint_colours(jnp.argmax(logits, axis=-1), grid)
        return masking.show_corrupted(masking.to_range(batch.image), predicted, extra, grid)

    return Objective(
        values,
        reads=frozenset({target}),
        draw=lambda keys: masking.corrupt(keys, grid.size, corrupt, exact=exact, masked=masked, replaced=replaced),
        counts=counts if parts else None,
        picture=picture,
    )


OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "softmax": softmax_cross_entropy,
    "sigmoid": sigmoid_cross_entropy,
    "regression": regression,
    "simmim": simmim,
    "mae": masked_autoencoding,
    "patches": masked_patch_prediction,
}
