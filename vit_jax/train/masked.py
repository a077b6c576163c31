"""The masked objectives in functions: their losses, what they draw, their pictures. `objectives` has their options.

`values`, `draw`, `counts` and `picture` are those of `objectives.Objective`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vit_jax.train import masking
from vit_jax.train.masking import Drawn, PatchGrid
from vit_jax.types import Batch, Outputs


class Task(NamedTuple):
    """The functions of a masked objective."""

    values: Callable[[Outputs, Batch], dict[str, Any]]
    draw: Callable[[jax.Array], Drawn]
    picture: Callable[[Outputs, Batch], dict[str, jax.Array]]
    counts: Callable[[Batch], jax.Array] | None = None


def simmim(grid: PatchGrid, mask_patch: tuple[int, int], ratio: float) -> Task:
    """See `objectives.simmim`."""
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

    return Task(values, draw, picture)


def masked_autoencoding(grid: PatchGrid, norm_pix: bool) -> Task:
    """See `objectives.masked_autoencoding`."""

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

    return Task(values, lambda keys: Drawn({"noise": masking.noise(keys, grid.size)}), picture)


def masked_patch_prediction(
    grid: PatchGrid, target: str, corrupt: float, exact: bool, masked: float, replaced: float
) -> Task:
    """See `objectives.masked_patch_prediction`."""
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

    def draw(keys: jax.Array) -> Drawn:
        return masking.corrupt(keys, grid.size, corrupt, exact=exact, masked=masked, replaced=replaced)

    return Task(values, draw, picture, counts if parts else None)
