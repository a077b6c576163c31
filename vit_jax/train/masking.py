"""Patches to predict: which are hidden, what they held, and pictures of both. The arithmetic of the masked objectives.

Everything is drawn from one key per example, on the device: in training from the step's key, for the whole batch before it is
cut, so that devices and accumulation change no mask; in evaluation from the image itself, so that a score repeats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from vit_jax.types import UserError

LEVELS = 8  # of each channel: 3 bits
GREY = 0.0  # hidden patches in a picture


class PatchGrid(NamedTuple):
    """The patches of a model's images.

    Args:
      shape: (gh, gw).
      patch: (h, w) of one in pixels.
    """

    shape: tuple[int, int]
    patch: tuple[int, int]

    @property
    def size(self) -> int:
        """Patches of an image."""
        return self.shape[0] * self.shape[1]


class Drawn(NamedTuple):
    """Choices drawn for each example.

    Args:
      inputs: arguments of the model, {name: (b, ...)}.
      extra: what the loss needs besides, {name: (b, ...)}; added to `Outputs.extra`.
    """

    inputs: Mapping[str, Any] = {}
    extra: Mapping[str, Any] = {}


def keys_of_images(images: Shaped[Array, "b h w c"]) -> Shaped[Array, " b"]:
    """A fixed key for each image, from its pixels: the same on any device, in any batch and in any order."""
    flat = images.astype(jnp.uint32).reshape(images.shape[0], -1)
    odd = jnp.arange(flat.shape[1], dtype=jnp.uint32) * jnp.uint32(2 * 0x4F1BBCDC) + jnp.uint32(1)
    return jax.vmap(jax.random.fold_in, (None, 0))(
        jax.random.key(0), jnp.sum(flat * odd[None], axis=1, dtype=jnp.uint32)
    )


def noise(keys: Shaped[Array, " b"], n: int) -> Float[Array, "b n"]:
    """Uniform noise in [0, 1), n values for each example."""
    return jax.vmap(lambda key: jax.random.uniform(key, (n,)))(keys)


def lowest(values: Float[Array, "b n"], count: int) -> Bool[Array, "b n"]:
    """Marks the `count` lowest values of each row."""
    return jnp.argsort(jnp.argsort(values, axis=1), axis=1) < count


def hide_cells(keys: Shaped[Array, " b"], grid: PatchGrid, cell: tuple[int, int], ratio: float) -> Bool[Array, "b n"]:
    """Hides ceil(ratio x cells) square cells of several patches each (arXiv 2111.09886, section 3.2)."""
    (gh, gw), (ch, cw) = grid.shape, (size // patch for size, patch in zip(cell, grid.patch, strict=True))
    rows, columns = gh // ch, gw // cw
    hidden = lowest(noise(keys, rows * columns), math.ceil(rows * columns * ratio))
    hidden = hidden.reshape(-1, rows, columns).repeat(ch, axis=1).repeat(cw, axis=2)
    return hidden.reshape(-1, gh * gw)  # b n


def check_cells(grid: PatchGrid, cell: tuple[int, int], ratio: float) -> None:
    """Refuses cells that are not whole patches, that do not fill the image, or of which none or all would be hidden.

    Raises:
      UserError: every mistake.
    """
    wrong = check_share("objective.ratio", ratio)
    size = [side * patch for side, patch in zip(grid.shape, grid.patch, strict=True)]
    told = "x".join(map(str, cell))
    if any(side < 1 or side % patch for side, patch in zip(cell, grid.patch, strict=True)):
        wrong.append(
            f"objective.mask_patch is {told} pixels, which the model's patch of {'x'.join(map(str, grid.patch))} does not "
            "divide; choose a multiple of the patch"
        )
    elif any(whole % side for whole, side in zip(size, cell, strict=True)):
        wrong.append(
            f"objective.mask_patch is {told} pixels, which does not divide the image of {size[0]}x{size[1]}; choose a divisor of "
            "data.resolution"
        )
    elif not wrong and math.ceil((cells := size[0] * size[1] // (cell[0] * cell[1])) * ratio) >= cells:
        wrong.append(
            f"objective.ratio is {ratio}, which hides all {cells} cells of {told} pixels; choose a smaller ratio or mask_patch"
        )
    if wrong:
        raise UserError("\n".join(wrong))


def check_share(key: str, share: float) -> list[str]:
    """One message if a share of the patches leaves none to see or none to predict."""
    if 0 < share < 1:
        return []
    return [f"{key} is {share}; expected above 0 and below 1: some patches are hidden, and some seen"]


def check_corruption(grid: PatchGrid, target: str, share: float, masked: float, replaced: float) -> None:
    """Refuses shares that leave nothing to see or to predict, and patches that cannot be cut into 4x4 parts.

    Raises:
      UserError: every mistake.
    """
    wrong = check_share("objective.corrupt", share)
    if min(masked, replaced) < 0 or masked + replaced > 1:
        wrong.append(
            f"objective.masked is {masked} and objective.replaced {replaced}; expected shares of 0 or more, together at most 1"
        )
    if target == "patch_4x4" and any(side % 4 for side in grid.patch):
        wrong.append(
            f"objective.target=patch_4x4 cuts patches into 4x4 parts, and 4 does not divide {'x'.join(map(str, grid.patch))} "
            "pixels; choose another model.patch_size or target"
        )
    if not wrong and not 0 < round(grid.size * share) < grid.size:
        wrong.append(f"objective.corrupt is {share} of {grid.size} patches: none, or all; choose smaller patches")
    if wrong:
        raise UserError("\n".join(wrong))


def corrupt(keys: Shaped[Array, " b"], n: int, share: float, *, exact: bool, masked: float, replaced: float) -> Drawn:
    """Corrupts a share of the patch embeddings as the ViT paper does (appendix B.1.2).

    Args:
      keys: one for each example.
      n: patches of an image.
      share: share of the patches that is corrupted and predicted.
      exact: whether the share is exact in every image; else each patch is drawn for itself.
      masked, replaced: shares of the corrupted ones that become the mask token, or another patch of the image; the rest is kept.

    Returns:
      inputs `hidden` and `other` of `models.masked.MaskedViT`; extra `corrupted` bool (b, n), and both inputs.
    """
    which, kind, place = (noise(jax.vmap(jax.random.fold_in, (0, None))(keys, i), n) for i in range(3))
    corrupted = lowest(which, round(n * share)) if exact else which < share
    hidden = corrupted & (kind < masked)
    own = jnp.arange(n)[None]
    step = 1 + jnp.minimum((place * (n - 1)).astype(jnp.int32), n - 2)  # another patch, never the same
    other = jnp.where(corrupted & ~hidden & (kind < masked + replaced), (own + step) % n, own)
    return Drawn({"hidden": hidden, "other": other}, {"hidden": hidden, "other": other, "corrupted": corrupted})


def to_range(images: Shaped[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Stored pixels in the range of the model's images, [-1, 1]."""
    return (images.astype(jnp.float32) - 127.5) / 127.5


def to_patches(images: Shaped[Array, "b h w c"], grid: PatchGrid) -> Shaped[Array, "b n p c"]:
    """Cuts images into patches of p pixels, row by row."""
    (gh, gw), (ph, pw) = grid
    b, _, _, c = images.shape
    return images.reshape(b, gh, ph, gw, pw, c).swapaxes(2, 3).reshape(b, gh * gw, ph * pw, c)


def from_patches(patches: Shaped[Array, "b n p c"], grid: PatchGrid) -> Shaped[Array, "b h w c"]:
    """The inverse of `to_patches`."""
    (gh, gw), (ph, pw) = grid
    b, c = patches.shape[0], patches.shape[-1]
    return patches.reshape(b, gh, gw, ph, pw, c).swapaxes(2, 3).reshape(b, gh * ph, gw * pw, c)


def colours_of(images: Shaped[Array, "b h w 3"], grid: PatchGrid, parts: int) -> Int[Array, "b n parts2"]:
    """Classes 64 r + 8 g + b of the mean colours of parts x parts equal areas of each patch, from stored pixels.

    A channel's level is min(floor(8 mean / 256), 7). Sums are integers, so no rounding moves a mean over the edge of a level.
    """
    (gh, gw), (ph, pw) = grid
    smaller = PatchGrid((gh * parts, gw * parts), (ph // parts, pw // parts))
    levels = to_patches(images.astype(jnp.int32), smaller).sum(axis=2) // (smaller.patch[0] * smaller.patch[1] * 32)
    classes = jnp.einsum("bnc,c->bn", levels, jnp.array([LEVELS**2, LEVELS, 1], jnp.int32))
    b = classes.shape[0]
    return classes.reshape(b, gh, parts, gw, parts).swapaxes(2, 3).reshape(b, gh * gw, parts * parts)


def paint_colours(classes: Int[Array, "b n parts2"], grid: PatchGrid) -> Float[Array, "b h w 3"]:
    """Images in [-1, 1] of the colours of `colours_of`, each in the middle of its levels."""
    (gh, gw), (ph, pw) = grid
    b, n, count = classes.shape
    parts = math.isqrt(count)
    levels = jnp.stack([classes // LEVELS**2, classes // LEVELS % LEVELS, classes % LEVELS], axis=-1)
    colours = (levels.astype(jnp.float32) + 0.5) * (2 / LEVELS) - 1  # b n parts2 3
    areas = colours.reshape(b, n, parts, 1, parts, 1, 3)
    areas = jnp.broadcast_to(areas, (b, n, parts, ph // parts, parts, pw // parts, 3))
    return from_patches(areas.reshape(b, n, ph * pw, 3), PatchGrid((gh, gw), (ph, pw)))


def mean_over(values: Float[Array, "b n"], chosen: Bool[Array, "b n"], epsilon: float = 0.0) -> Float[Array, " b"]:
    """The mean over the chosen patches of each example; 0 if there are none."""
    count = chosen.sum(axis=1).astype(jnp.float32)
    return jnp.sum(jnp.where(chosen, values, 0.0), axis=1) / (count + epsilon if epsilon else jnp.maximum(count, 1.0))


def mean_colour(patches: Float[Array, "b n p c"], seen: Bool[Array, "b n"]) -> Float[Array, "b 1 1 c"]:
    """The mean colour of the patches that are seen: the simplest guess for those that are not."""
    weights = seen.astype(jnp.float32)[..., None]
    total = jnp.maximum(weights.sum(axis=1), 1.0)
    return ((patches.mean(axis=2) * weights).sum(axis=1) / total)[:, None, None]


def normalise_patches(
    patches: Float[Array, "b n p c"],
) -> tuple[Float[Array, "b n p c"], Float[Array, "b n 1 1"], Float[Array, "b n 1 1"]]:
    """Patches with their own mean and deviation taken off, and both; the variance is unbiased, as MAE's (PyTorch's) is."""
    mean = patches.mean(axis=(2, 3), keepdims=True)
    size = patches.shape[2] * patches.shape[3]
    variance = jnp.square(patches - mean).sum(axis=(2, 3), keepdims=True) / max(size - 1, 1)
    deviation = jnp.sqrt(variance + 1e-6)
    return (patches - mean) / deviation, mean, deviation


def show(
    original: Float[Array, "b n p c"],
    predicted: Float[Array, "b n p c"],
    hidden: Bool[Array, "b n"],
    grid: PatchGrid,
    note: str = "",
) -> dict[str, Float[Array, "b h w c"]]:
    """Pictures in [-1, 1]: the original, what the model saw, and what it saw with its predictions in place of the hidden."""
    chosen = hidden[..., None, None]
    columns = {"original": original, "masked": jnp.where(chosen, GREY, original)}
    columns[f"reconstructed{note}"] = jnp.where(chosen, predicted, original)
    return {name: from_patches(patches, grid) for name, patches in columns.items()}


def show_corrupted(
    original: Float[Array, "b h w c"], predicted: Float[Array, "b h w c"], extra: Mapping[str, Any], grid: PatchGrid
) -> dict[str, Float[Array, "b h w c"]]:
    """Pictures as `show` has them, of images that `corrupt` changed: replaced patches are seen where they were put."""
    patches = to_patches(original, grid)
    seen = jnp.take_along_axis(patches, extra["other"][..., None, None], axis=1)
    shown = show(patches, to_patches(predicted, grid), extra["corrupted"], grid)
    return shown | {"masked": from_patches(jnp.where(extra["hidden"][..., None, None], GREY, seen), grid)}
