"""Mixup and CutMix, on the device: a batch and its losses are mixed with the same batch rolled by one.

Where a loss is linear in the target (`Objective.linear`), the loss of a mixed target is the mixture of the losses: no soft
labels are needed. `assemble` refuses mixing for any other loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax.types import Batch, UserError


class Mixed(NamedTuple):
    """A mixed batch.

    Args:
      image: float32 (b, h, w, c) in the range of the stored pixels.
      share: weight of the batch's own labels in the loss; the rolled batch's labels have 1 - share.
    """

    image: Float[Array, "b h w c"]
    share: Float[Array, ""]


def mixup(image: Float[Array, "b h w c"], rng: jax.Array, alpha: float) -> Mixed:
    """a x + (1 - a) roll(x), with a = max(B, 1 - B), B ~ Beta(alpha, alpha), one for the whole batch (arXiv 1710.09412)."""
    a = jax.random.beta(rng, alpha, alpha)
    a = jnp.maximum(a, 1 - a)
    return Mixed(image * a + jnp.roll(image, 1, axis=0) * (1 - a), a)


def cutmix(image: Float[Array, "b h w c"], rng: jax.Array, alpha: float) -> Mixed:
    """Pastes a box of the rolled batch into each image; its share of the area is 1 - Beta(alpha, alpha) (arXiv 1905.04899)."""
    h, w = image.shape[1:3]
    beta_key, y_key, x_key = jax.random.split(rng, 3)
    side = jnp.sqrt(1 - jax.random.beta(beta_key, alpha, alpha))

    def inside(key: jax.Array, size: int) -> jax.Array:
        """Marks the rows or columns, of `size`, that are in the box, whose centre may be anywhere."""
        centre, at = jax.random.uniform(key) * size, jnp.arange(size, dtype=jnp.float32)
        half = side * size / 2
        return (at >= jnp.round(centre - half)) & (at < jnp.round(centre + half))

    box = inside(y_key, h)[:, None] & inside(x_key, w)[None]
    # Only the part of the box inside the image counts.
    return Mixed(jnp.where(box[None, :, :, None], jnp.roll(image, 1, axis=0), image), 1 - box.mean(dtype=jnp.float32))


def make_mix(mixup_alpha: float, cutmix_alpha: float) -> Callable[[Batch, jax.Array], Mixed] | None:
    """Builds the mixing of a run: mixup, CutMix, or at each step either with equal chance; None for neither.

    Raises:
      UserError: a negative alpha.
    """
    if min(mixup_alpha, cutmix_alpha) < 0:
        raise UserError(f"train.mixup is {mixup_alpha} and train.cutmix {cutmix_alpha}; expected 0 (off) or more")
    if not mixup_alpha and not cutmix_alpha:
        return None

    def mix(batch: Batch, rng: jax.Array) -> Mixed:
        image = batch.image.astype(jnp.float32)
        if not cutmix_alpha:
            return mixup(image, rng, mixup_alpha)
        if not mixup_alpha:
            return cutmix(image, rng, cutmix_alpha)
        choice, rng = jax.random.split(rng)
        return jax.lax.cond(
            jax.random.bernoulli(choice),
            lambda: mixup(image, rng, mixup_alpha),
            lambda: cutmix(image, rng, cutmix_alpha),
        )

    return mix


def mixed_values(values: Callable[..., dict[str, Any]], outputs: Any, batch: Batch, share: jax.Array) -> dict:
    """Mixes `Objective.values` of both targets of each example; correct only for a loss that is linear in the target."""
    own = values(outputs, batch)
    other = values(outputs, batch._replace(target=jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), batch.target)))
    return {name: share * own[name] + (1 - share) * other[name] for name in own}
