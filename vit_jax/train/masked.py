"""Objectives without labels: SimMIM, MAE, and the ViT paper's masked patch prediction."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import optax

from vit_jax.train import masking
from vit_jax.train.masking import Drawn, PatchGrid
from vit_jax.train.objective import Objective
from vit_jax.types import Batch, Outputs


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
