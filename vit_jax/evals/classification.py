"""Top-1, top-5 and loss over a whole split: every example once, the last batch padded and masked, the count asserted.

Called by: run, through evals.build.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vit_jax import partition
from vit_jax.data.sources import Source, open_source
from vit_jax.evals.base import read_split
from vit_jax.evals.scoring import keep_competing
from vit_jax.metrics import Mean
from vit_jax.types import Batch, DatasetSpec, Duration, UserError


@dataclasses.dataclass(kw_only=True)
class Classification:
    """Scores the classifier itself.

    Args:
      split: what to score, in TFDS's syntax.
      dataset, data_dir: as in the data section; "" for the training set's.
      resolution: (h, w) pixels; (0, 0) for the training resolution.
      recipe: `eval` squashes images to it, as in the release; `eval_crop` keeps their aspect and crops the middle.
      batch_size: global.
      every: how often; the last step is always scored.
      max_corrupt: images that may fail to decode: they are left out of num_examples and named; more stop the run.
    """

    split: str
    dataset: str = ""
    data_dir: str = ""
    resolution: tuple[int, int] = (0, 0)
    recipe: Literal["eval", "eval_crop"] = "eval"
    batch_size: int = 512
    every: Duration = "10%"
    max_corrupt: int = 100
    _source: Source | None = dataclasses.field(default=None, init=False, repr=False)
    _step: Any = dataclasses.field(default=None, init=False, repr=False)

    def open(self) -> list[DatasetSpec]:
        """Opens the split."""
        self._source = open_source(self.dataset, self.split, self.data_dir)
        return [self._source.spec]

    def check_head(self, num_classes: int) -> None:
        """Refuses a model that has no score for some of the data's classes.

        Raises:
          UserError: the data has more classes than the model.
        """
        assert self._source is not None, "open() comes first"
        spec = self._source.spec
        if spec.num_classes > num_classes:
            raise UserError(
                f"{spec.name} has {spec.num_classes:,} classes and the model scores {num_classes:,}; evaluate on data of the "
                "training set's classes"
            )

    def __call__(
        self, params: Any, forward: Callable[..., Any], objective: Callable[..., Any], mesh: Mesh
    ) -> dict[str, float]:
        """Returns top1 and top5 (fractions), loss (the training objective's) and num_examples."""
        assert self._source is not None, "open() comes first"
        competing = self._source.spec.competing
        if self._step is None:
            self._step = jax.jit(
                lambda params, batch: _score(forward, objective, params, batch, competing),
                out_shardings=partition.replicated(mesh),
            )
        sums: dict[str, list[float]] = {}
        batches = read_split(
            self._source,
            recipe=self.recipe,
            resolution=self.resolution,
            batch_size=self.batch_size,
            mesh=mesh,
            max_corrupt=self.max_corrupt,
        )
        on_device = [self._step(params, batch) for batch, _ in batches]
        for part in jax.device_get(on_device):
            for name, value in part.items():
                sums.setdefault(name, []).append(float(value))
        totals = {name: math.fsum(values) for name, values in sums.items()}
        count = totals.pop("count")
        if not 0 <= len(self._source) - count <= self.max_corrupt:
            raise UserError(f"{self.dataset} {self.split}: scored {count:.0f} examples of {len(self._source)}")
        return {name: Mean(total, count).value for name, total in totals.items()} | {"num_examples": int(count)}


def _score(
    forward: Callable[..., Any], objective: Callable[..., Any], params: Any, batch: Batch, competing: tuple[int, ...]
) -> dict[str, jax.Array]:
    """Sums over the real rows of a batch."""
    outputs = forward(params, batch.image)
    logits = keep_competing(outputs.logits, competing)
    _, best = jax.lax.top_k(logits, min(5, len(competing) or logits.shape[-1]))  # b k
    hits = jnp.where(best == batch.label[:, None], batch.mask[:, None], 0.0)
    loss = jnp.where(batch.mask > 0, objective(outputs, batch)["loss"], 0.0)
    return {"top1": hits[:, 0].sum(), "top5": hits.sum(), "loss": loss.sum(), "count": batch.mask.sum()}
