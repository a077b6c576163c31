"""Evaluators: their interface, and the pass over a split that all of them share.

To add one: a dataclass with these members, an entry in `evals.build.EVALUATORS`, and a section under `evals` in a config.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from jax.sharding import Mesh

from vit_jax import partition
from vit_jax.data.image.recipes import make_transform
from vit_jax.data.source import Source
from vit_jax.data.stream.loader import eval_batches
from vit_jax.train.objectives import Objective
from vit_jax.types import Batch, DatasetSpec, Duration, Outputs, UserError

# Whether photographs are turned as EXIF says; "" follows the data section, which documents the choice.
Exif = Literal["", "apply", "ignore"]


class Scores(NamedTuple):
    """The result of one pass.

    Args:
      values: {metric: value}, fractions in [0, 1] for accuracies; a run records them.
      examples: {name: (n, ...)} with one row per scored example, all in one order; empty if an evaluator keeps none. A run writes
        those of its last step to `predictions/NAME.npz`.
      picture: uint8 (h, w, 3), or None; a run writes it to `pictures/NAME-STEP.png`.
    """

    values: dict[str, float]
    examples: Mapping[str, np.ndarray] = {}
    picture: np.ndarray | None = None


Scorer = Callable[[Any], Scores]  # its argument: the parameters


@dataclasses.dataclass(frozen=True)
class Bound:
    """The model that an evaluator scores, without its parameters.

    Args:
      forward: `forward(params, images) -> Outputs`, from `models.build.make_forward`.
      objective: the training objective; None outside training, and then no evaluator may ask for its loss.
      mesh: the mesh that it runs on.
      num_classes: outputs of its head; 0 for no head.
      grid: (h, w) of images to (gh, gw) of their patches; None where it is not known.
      shapes: its parameters' shapes, with which an evaluator checks its outputs before the run; None where they are not known.
      shared: for evaluators that share work, such as features.
    """

    forward: Callable[..., Outputs]
    objective: Objective | None
    mesh: Mesh
    num_classes: int
    grid: Callable[[tuple[int, int]], tuple[int, int]] | None = None
    shapes: Any = None
    shared: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)


class Evaluator(Protocol):
    """Scores parameters on data of its own. The keys of its config section under `evals` are its keyword arguments."""

    every: Duration

    def open(self) -> list[DatasetSpec]:
        """Opens every split that it will read, so that a UserError comes now rather than at step 40,000."""

    def bind(self, model: Bound) -> Scorer:
        """Returns the function that scores parameters of `model`; compiles nothing yet. Call `open` first.

        Raises:
          UserError: the model lacks the outputs to score, or the batch size does not divide over its devices.
        """


def has_top5(spec: DatasetSpec) -> bool:
    """Whether top-5 is meaningful: with five classes or fewer, the right one is always among the five."""
    return (len(spec.competing) or spec.num_classes) > 5


def read_split(
    source: Source,
    *,
    recipe: str,
    resolution: tuple[int, int],
    batch_size: int,
    mesh: Mesh,
    max_corrupt: int,
    exif: Exif = "apply",
) -> Iterator[tuple[Batch, int]]:
    """Yields every example of a split exactly once, as (global batch on the devices, real rows in it on this process).

    Raises:
      UserError: the examples read plus those skipped as corrupt are not the whole split (never silently fewer).
    """
    import jax

    transform = make_transform(recipe, resolution, target=source.spec.target, short_side=source.spec.short_side)
    batches = eval_batches(
        source,
        transform,
        batch_size=batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        max_corrupt=max_corrupt,
        upright=exif != "ignore",
    )
    count = 0
    for batch in batches:
        rows = int(batch.mask.sum())
        count += rows
        yield partition.put_batch(batch, mesh), rows
    if jax.process_count() == 1 and count + len(batches.corrupt) != len(source):
        raise UserError(
            f"{source.spec.name} {source.spec.split}: {count} examples read and {len(batches.corrupt)} corrupt, but the "
            f"split has {len(source)}"
        )
