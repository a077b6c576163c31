"""The full score of a classifier on one split: top-1, top-5, likelihood and calibration with bootstrap intervals; also where
examples have several right classes (ImageNet ReaL, ObjectNet) or only some classes compete (ImageNet-A, -R).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from vit_jax import partition
from vit_jax.data.open import open_source
from vit_jax.data.source import Source
from vit_jax.evals.base import Exif, has_top5, read_split
from vit_jax.evals.scoring import score_rows, summarize
from vit_jax.targets import ClassSet
from vit_jax.types import Batch, DatasetSpec, Duration, UserError, counted


@dataclasses.dataclass(kw_only=True)
class Scorecard:
    """Scores the classifier itself, image by image.

    Args:
      split: what to score, in TFDS's syntax.
      dataset, data_dir, exif: as in the data section; "" for the training set's.
      resolution: (h, w) pixels; (0, 0) for the training resolution.
      recipe: `eval` squashes images to it, as in the release; `eval_crop` keeps their aspect and crops the middle, and
        `objectnet` crops less.
      likelihood: what scores mean, for nll and ece; "" for what the training objective makes of them.
      bootstrap: resamples of the 95% intervals; 0 for none.
      batch_size: global.
      every: how often; the last step is always scored.
      max_corrupt: images that may fail to decode: they are left out of num_examples and named; more stop the run.
    """

    split: str
    dataset: str = ""
    data_dir: str = ""
    exif: Exif = ""
    resolution: tuple[int, int] = (0, 0)
    recipe: Literal["eval", "eval_crop", "objectnet"] = "eval"
    likelihood: Literal["", "softmax", "sigmoid"] = ""
    bootstrap: int = 1000
    batch_size: int = 512
    every: Duration = "10%"
    max_corrupt: int = 100
    _source: Source | None = dataclasses.field(default=None, init=False, repr=False)
    _step: Any = dataclasses.field(default=None, init=False, repr=False)

    def open(self) -> list[DatasetSpec]:
        """Opens the split."""
        if self.bootstrap < 0:
            raise UserError(f"bootstrap must be 0 (no intervals) or more resamples, found {self.bootstrap}")
        self._source = open_source(self.dataset, self.split, self.data_dir, multi_label=True)
        return [self._source.spec]

    def check_head(self, num_classes: int) -> None:
        """Refuses a model whose classes are not the data's.

        Raises:
          UserError: it scores more or fewer.
        """
        assert self._source is not None, "open() comes first"
        spec = self._source.spec
        if spec.num_classes != num_classes:
            raise UserError(
                f"{spec.name} has {spec.num_classes:,} classes and the model scores {num_classes:,}: its accuracy there means "
                "nothing; score a model that was trained on, or fine-tuned to, these classes (configs/finetune.py)"
            )

    def __call__(
        self, params: Any, forward: Callable[..., Any], objective: Callable[..., Any], mesh: Mesh
    ) -> dict[str, float]:
        """Returns top1, top5 (of more than five classes), nll, ece, each with _low and _high, and num_examples; also
        num_unlabelled of label sets, and num_corrupt where images did not decode."""
        assert self._source is not None, "open() comes first"
        if self._step is None:
            # Replicated: each process holds every row, and draws the same resamples of them.
            self._step = jax.jit(
                lambda params, batch: self._score(forward, params, batch), out_shardings=partition.replicated(mesh)
            )
        batches = read_split(
            self._source,
            recipe=self.recipe,
            resolution=self.resolution,
            batch_size=self.batch_size,
            mesh=mesh,
            max_corrupt=self.max_corrupt,
            exif=self.exif,
        )
        parts = jax.device_get([self._step(params, batch) for batch, _ in batches])
        rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        seen = rows.pop("mask") > 0
        corrupt = len(self._source) - int(seen.sum())
        if not 0 <= corrupt <= self.max_corrupt:
            raise UserError(f"{self.dataset} {self.split}: scored {seen.sum()} examples of {len(self._source)}")
        labelled = seen & rows["labelled"]
        self._check_labels(rows, labelled)
        scores = summarize({name: values[labelled] for name, values in rows.items()}, self.bootstrap)
        if not has_top5(self._source.spec):
            scores = {name: value for name, value in scores.items() if not name.startswith("top5")}
        scores["num_examples"] = int(labelled.sum())
        if isinstance(self._source.spec.target, ClassSet):
            scores["num_unlabelled"] = int((seen & ~labelled).sum())
        return scores | ({"num_corrupt": corrupt} if corrupt else {})

    @property
    def spec(self) -> DatasetSpec:
        """Of the opened split."""
        assert self._source is not None, "open() comes first"
        return self._source.spec

    def _score(self, forward: Callable[..., Any], params: Any, batch: Batch) -> dict[str, jax.Array]:
        """Values of each row of a batch, padding included; runs while the step is traced, once."""
        assert self._source is not None
        logits = forward(params, batch.image).logits
        self.check_head(logits.shape[-1])
        rows = score_rows(
            logits,
            batch.target,
            competing=self._source.spec.competing,
            likelihood=self.likelihood or "softmax",
        )
        return rows | {"mask": batch.mask}

    def _check_labels(self, rows: dict[str, np.ndarray], labelled: np.ndarray) -> None:
        assert self._source is not None
        if not labelled.any():
            raise UserError(f"{self.dataset} {self.split}: none of its {len(self._source)} images has a label to score")
        strange = int((labelled & ~rows["possible"]).sum())
        if strange:
            raise UserError(
                f"{self.dataset} {self.split}: {counted(strange, 'image')} labelled with classes that are not among the "
                f"{len(self._source.spec.competing)} that compete there; expected the published data set: prepare it again"
            )
