"""Top-1, top-5 and loss over a whole split: every example once, the last batch padded and masked, the count asserted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vit_jax import partition
from vit_jax.data.open import open_source
from vit_jax.data.source import Source
from vit_jax.evals.base import Exif, has_top5, read_split
from vit_jax.evals.scoring import keep_competing
from vit_jax.metrics import Mean
from vit_jax.train.objectives import Objective
from vit_jax.types import Batch, DatasetSpec, Duration, UserError


class Rows(NamedTuple):
    """Of a batch, each (b,): label, predicted class, its softmax, and the mask."""

    label: Any
    predicted: Any
    confidence: Any
    mask: Any


@dataclasses.dataclass(kw_only=True)
class Classification:
    """Scores the classifier itself.

    Args:
      split: what to score, in TFDS's syntax.
      dataset, data_dir, exif: as in the data section; "" for the training set's.
      resolution: (h, w) pixels; (0, 0) for the training resolution.
      recipe: `eval` squashes images to it, as in the release; `eval_crop` keeps their aspect and crops the middle.
      batch_size: global.
      every: how often; the last step is always scored.
      max_corrupt: images that may fail to decode: they are left out of num_examples and named; more stop the run.

    After a call, `predictions` has a row per scored example of the split: see `collect_predictions`.
    """

    split: str
    dataset: str = ""
    data_dir: str = ""
    exif: Exif = ""
    resolution: tuple[int, int] = (0, 0)
    recipe: Literal["eval", "eval_crop"] = "eval"
    batch_size: int = 512
    every: Duration = "10%"
    max_corrupt: int = 100
    predictions: dict[str, np.ndarray] = dataclasses.field(default_factory=dict, init=False, repr=False)
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

    def __call__(self, params: Any, forward: Callable[..., Any], objective: Objective, mesh: Mesh) -> dict[str, float]:
        """Returns top1 and, of more than five classes, top5 (fractions), loss (the training objective's) and num_examples."""
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
            exif=self.exif,
        )
        on_device = [self._step(params, batch) for batch, _ in batches]
        fetched = jax.device_get(on_device)
        self.predictions = collect_predictions([rows for _, rows in fetched])
        for part, _ in fetched:
            for name, value in part.items():
                sums.setdefault(name, []).append(float(value))
        totals = {name: math.fsum(values) for name, values in sums.items()}
        count = totals.pop("count")
        if not has_top5(self._source.spec):
            del totals["top5"]
        if not 0 <= len(self._source) - count <= self.max_corrupt:
            raise UserError(f"{self.dataset} {self.split}: scored {count:.0f} examples of {len(self._source)}")
        return {name: Mean(total, count).value for name, total in totals.items()} | {"num_examples": int(count)}


def _score(
    forward: Callable[..., Any], objective: Objective, params: Any, batch: Batch, competing: tuple[int, ...]
) -> tuple[dict[str, jax.Array], Rows]:
    """Sums over the real rows of a batch, and all its rows."""
    outputs = forward(params, batch.image)
    logits = keep_competing(outputs.logits, competing)
    _, best = jax.lax.top_k(logits, min(5, len(competing) or logits.shape[-1]))  # b k
    hits = jnp.where(best == batch.target[:, None], batch.mask[:, None], 0.0)
    loss = jnp.where(batch.mask > 0, objective.values(outputs, batch)["loss"], 0.0)
    sums = {"top1": hits[:, 0].sum(), "top5": hits.sum(), "loss": loss.sum(), "count": batch.mask.sum()}
    # A softmax of the best class alone: no probabilities of all classes are kept.
    confidence = jnp.exp(logits.max(axis=-1) - jax.nn.logsumexp(logits, axis=-1))
    return sums, Rows(batch.target, best[:, 0], confidence, batch.mask)


def collect_predictions(batches: list[Rows]) -> dict[str, np.ndarray]:
    """What was predicted for each scored example, in the order of the split.

    Args:
      batches: of one pass, in order; padded and corrupt rows have mask 0.

    Returns:
      index (in the split), label, predicted (int32), confidence (float32, softmax of the predicted class), each (n,).
    """
    label, predicted, confidence, mask = (np.concatenate(column) for column in zip(*batches, strict=True))
    (index,) = np.nonzero(mask)
    rows = {"label": label, "predicted": predicted, "confidence": confidence}
    return {"index": index.astype(np.int32)} | {name: values[index] for name, values in rows.items()}
