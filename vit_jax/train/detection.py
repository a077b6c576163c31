"""The loss of set prediction (DETR, YOLOS): each object is matched to one detection, all others should answer no object.

Both normalisers, the sum of class weights and the number of objects, depend on targets alone. They are counted on the whole
global batch before it is cut, so devices and accumulation change no number. The matching runs on the device
(`optax.assignment`), inside shard_map: left to XLA, its while loop would ask all devices in every turn, and a callback to SciPy
would gather the batch and keep the program out of the compilation cache.

Source: arXiv 2005.12872, section 3.1; arXiv 2106.00666.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from vit_jax import partition
from vit_jax.types import Batch, Outputs

# Areas are shares of the image: a pixel of 4000 x 4000 is 6e-8.
LEAST_AREA = 1e-12


class Weights(NamedTuple):
    """Weights of the parts; see `objectives.set_prediction`."""

    no_object: float = 0.1
    kind: float = 1.0
    box: float = 5.0
    giou: float = 2.0

    @property
    def most(self) -> float:
        """The largest possible cost of a match."""
        return 4 * self.box + 2 * self.giou


class Counted(NamedTuple):
    """The target of a batch whose objects are counted.

    Args:
      objects: `targets.BoxBatch`.
      images: float32 (b, m + 1), how many images of the whole batch have 0, 1, ... m objects; every row is the same.
    """

    objects: Any
    images: Any


def count_objects(batch: Batch) -> Batch:
    """Adds the counts that the normalisers need; see `Objective.prepare`."""
    found = present(batch.target).sum(axis=1).astype(jnp.int32)  # b
    one = jax.nn.one_hot(found, batch.target.valid.shape[1] + 1) * batch.mask[:, None]  # b m+1
    images = jnp.broadcast_to(one.sum(axis=0), one.shape)
    return batch._replace(target=Counted(batch.target, images))


def present(objects: Any) -> Float[Array, "b m"]:
    """1 for each object to find; a crowd is none."""
    return objects.valid * (1 - objects.crowd)


def make_values(
    weights: Weights, mesh: Mesh | None = None
) -> Callable[[Outputs, Batch], dict[str, Float[Array, " b"]]]:
    """Makes the values of an `Objective`: the loss, its three parts, and for a reader the mean overlap of the matches and the
    objects per image beyond the number of queries, which no query can find."""

    def values(outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
        counted = batch.target if isinstance(batch.target, Counted) else count_objects(batch).target
        objects, valid = counted.objects, present(counted.objects)
        logits, boxes = outputs.extra["class_logits"], outputs.extra["boxes"]
        q, c = logits.shape[1], logits.shape[2] - 1
        wanted = to_centres(objects.box)  # b m 4
        cost = match_costs(logits, boxes, objects.kind, wanted, weights)
        query = match(jax.lax.stop_gradient(cost), valid, weights.most, mesh)  # b m
        matched = (query >= 0).astype(jnp.float32)
        kind = jax.vmap(lambda to, kinds: jnp.full(q, c).at[jnp.where(to < 0, q, to)].set(kinds, mode="drop"))(
            query, objects.kind
        )  # b q
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, kind)
        nll = (nll * jnp.where(kind == c, weights.no_object, 1.0)).sum(axis=1)  # b
        answers = jnp.take_along_axis(boxes, jnp.maximum(query, 0)[..., None], axis=1)  # b m 4
        overlap, giou = overlaps(to_corners(answers), objects.box)

        number = jnp.arange(counted.images.shape[1], dtype=jnp.float32)
        images = counted.images[0]
        total = jnp.maximum(images.sum(), 1.0)
        sum_of_weights = (images * (weights.no_object * q + (1 - weights.no_object) * jnp.minimum(number, q))).sum()
        per_weight = total / jnp.maximum(sum_of_weights, LEAST_AREA)
        per_object = total / jnp.maximum((images * number).sum(), 1.0)
        parts = {
            "loss_class": nll * per_weight,
            "loss_box": (jnp.abs(answers - wanted).sum(axis=-1) * matched).sum(axis=1) * per_object,
            "loss_giou": ((1 - giou) * matched).sum(axis=1) * per_object,
        }
        loss = weights.kind * parts["loss_class"] + weights.box * parts["loss_box"] + weights.giou * parts["loss_giou"]
        found = {"overlap": (overlap * matched).sum(axis=1) * per_object, "left_out": (valid - matched).sum(axis=1)}
        return {"loss": loss, **parts, **found}

    return values


def match_costs(
    logits: Float[Array, "b q c1"],
    boxes: Float[Array, "b q 4"],
    kind: Int[Array, "b m"],
    wanted: Float[Array, "b m 4"],
    weights: Weights,
) -> Float[Array, "b q m"]:
    """The cost of each match: minus the probability of the class, L1 distance of centres and sizes, minus GIoU."""
    probability = jnp.take_along_axis(jax.nn.softmax(logits, axis=-1), kind[:, None, :], axis=-1)  # b q m
    distance = jnp.abs(boxes[:, :, None] - wanted[:, None]).sum(axis=-1)
    _, giou = overlaps(to_corners(boxes)[:, :, None], to_corners(wanted)[:, None])
    return -weights.kind * probability + weights.box * distance - weights.giou * giou


def match(
    cost: Float[Array, "b q m"], valid: Float[Array, "b m"], most: float, mesh: Mesh | None = None
) -> Int[Array, "b m"]:
    """The query of each object in the matching of least total cost; -1 for padding, and for objects beyond the queries.

    Args:
      cost: of each query for each object; NaN counts as `most`.
      valid: 1 for an object, 0 for padding.
      most: the largest possible cost.
      mesh: matches the rows of each device there; None leaves the split to XLA.
    """
    _, q, m = cost.shape
    # With a query for everyone, a column of constants changes no other match; without, padding must not take a query.
    padding = 0.0 if q >= m else most + 1.0

    def match_one(cost: jax.Array, valid: jax.Array) -> jax.Array:
        cost = jnp.nan_to_num(cost.astype(jnp.float32), nan=most, posinf=most, neginf=most)
        rows, columns = optax.assignment.hungarian_algorithm(jnp.where(valid[None] > 0, cost, padding))
        query = jnp.full(m, -1, jnp.int32).at[columns].set(rows.astype(jnp.int32))
        return jnp.where(valid > 0, query, -1)

    match_all = jax.vmap(match_one)
    if mesh is not None:
        rows = PartitionSpec(partition.BATCH_AXES)
        match_all = jax.shard_map(match_all, mesh=mesh, in_specs=(rows, rows), out_specs=rows, check_vma=False)
    return match_all(cost, valid)


def to_corners(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """(centre x, centre y, width, height) to (left, top, right, bottom)."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([centre - size / 2, centre + size / 2], axis=-1)


def to_centres(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """The inverse of `to_corners`."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([(low + high) / 2, high - low], axis=-1)


def overlaps(a: Float[Array, ...], b: Float[Array, ...]) -> tuple[Float[Array, ...], Float[Array, ...]]:
    """Intersection over union, and generalised IoU (arXiv 1902.09630), of boxes as corners; shapes broadcast."""

    def area(low: jax.Array, high: jax.Array) -> jax.Array:
        return jnp.prod(jnp.maximum(high - low, 0.0), axis=-1)

    shared = area(jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:]))
    union = area(a[..., :2], a[..., 2:]) + area(b[..., :2], b[..., 2:]) - shared
    hull = area(jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:]))
    iou = shared / jnp.maximum(union, LEAST_AREA)
    return iou, iou - (hull - union) / jnp.maximum(hull, LEAST_AREA)
