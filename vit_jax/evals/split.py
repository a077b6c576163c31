"""One pass over a split that scores a classifier: opening the split, checking the model, and counting the examples."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import jax
import numpy as np

from vit_jax import partition
from vit_jax.data.open import open_source
from vit_jax.data.source import Source
from vit_jax.evals.base import Bound, Exif, Scorer, Scores, read_split
from vit_jax.types import Batch, DatasetSpec, Duration, UserError


@dataclasses.dataclass(kw_only=True)
class ScoredSplit:
    """The shared part of evaluators of a classifier on one split; each adds how it scores a batch and how it summarises all rows.

    Args:
      split: the split to score, in TFDS's syntax.
      dataset, data_dir, exif: as in the data section; those of the training set where a config leaves them out.
      resolution: (h, w) pixels; the training resolution where a config leaves it out.
      recipe: `eval` squashes images to the resolution, as in the release; `eval_crop` keeps their aspect and crops the middle,
        and `objectnet` crops less.
      batch_size: global batch size.
      every: how often it runs; the last step is always scored.
      max_corrupt: number of images that may fail to decode: they are named and left out of num_examples; more stop the run.
    """

    split: str
    dataset: str = ""
    data_dir: str = ""
    exif: Exif = ""
    resolution: tuple[int, int] = (0, 0)
    recipe: Literal["eval", "eval_crop", "objectnet"] = "eval"
    batch_size: int = 512
    every: Duration = "10%"
    max_corrupt: int = 100
    _source: Source | None = dataclasses.field(default=None, init=False, repr=False)

    def open(self) -> list[DatasetSpec]:
        """Opens the split."""
        self._source = self.open_split()
        return [self.spec]

    def open_split(self) -> Source:
        """The split's source."""
        return open_source(self.dataset, self.split, self.data_dir)

    @property
    def source(self) -> Source:
        """The opened split."""
        assert self._source is not None, "open() comes first"
        return self._source

    @property
    def spec(self) -> DatasetSpec:
        """The DatasetSpec of the opened split."""
        return self.source.spec

    def check_head(self, num_classes: int) -> None:
        """Refuses a model whose head cannot be scored on the data's classes.

        Raises:
          UserError: the head scores too few, too many or other classes.
        """
        raise NotImplementedError

    def score_batch(self, model: Bound, params: Any, batch: Batch) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Returns ({name: sum over the batch's real rows}, {name: (b,)} for all rows, with padding); traced once."""
        raise NotImplementedError

    def summarize(self, sums: dict[str, Any], rows: dict[str, np.ndarray], seen: np.ndarray) -> Scores:
        """Computes scores from the sums and rows of a whole pass; `seen`, bool (n,), is False for padding and corrupt images."""
        raise NotImplementedError

    def bind(self, model: Bound) -> Scorer:
        """See `Evaluator.bind`; in a run of several processes, each process holds every row."""
        self.check_head(model.num_classes)
        partition.check_batch_size(self.batch_size, model.mesh, path="batch_size")
        step = jax.jit(
            lambda params, batch: self.score_batch(model, params, batch),
            out_shardings=partition.replicated(model.mesh),
        )

        def score(params: Any) -> Scores:
            batches = read_split(
                self.source,
                recipe=self.recipe,
                resolution=self.resolution,
                batch_size=self.batch_size,
                mesh=model.mesh,
                max_corrupt=self.max_corrupt,
                exif=self.exif,
            )
            parts = jax.device_get([step(params, batch) for batch, _ in batches])
            sums = {name: _total([part[name] for part, _ in parts]) for name in parts[0][0]}
            rows = {name: np.concatenate([part[name] for _, part in parts]) for name in parts[0][1]}
            seen = rows.pop("mask") > 0
            count = int(seen.sum())
            if not 0 <= len(self.source) - count <= self.max_corrupt:
                raise UserError(f"{self.dataset} {self.split}: scored {count} examples of {len(self.source)}")
            return self.summarize(sums, rows, seen)

        return score


def _total(parts: list[np.ndarray]) -> Any:
    """The sum over batches, rounded once."""
    return np.sum(parts, axis=0, dtype=np.float64) if np.ndim(parts[0]) else math.fsum(map(float, parts))
