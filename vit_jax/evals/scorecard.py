"""The full score of a classifier on one split: top-1, top-5, likelihood and calibration with bootstrap intervals; also for
examples with several right classes (ImageNet ReaL, ObjectNet) and for sets in which only some classes compete (ImageNet-A, -R).
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import numpy as np

from vit_jax.data.open import open_source
from vit_jax.data.source import Source
from vit_jax.evals.base import Bound, Scores, has_top5
from vit_jax.evals.scoring import score_rows, summarize
from vit_jax.evals.split import ScoredSplit
from vit_jax.targets import ClassSet
from vit_jax.types import Batch, UserError, counted


@dataclasses.dataclass(kw_only=True)
class Scorecard(ScoredSplit):
    """Scores the classifier itself, image by image: top1, top5 (if there are more than five classes), nll and ece, each with _low
    and _high, and num_examples; also num_unlabelled for label sets, and num_corrupt if images did not decode.

    Args:
      likelihood: how scores become probabilities for nll and ece; "" for the training objective's way.
      bootstrap: resamples for the 95% intervals; 0 for none.
      Others: see `ScoredSplit`.
    """

    likelihood: Literal["", "softmax", "sigmoid"] = ""
    bootstrap: int = 1000

    def open_split(self) -> Source:
        """The split's source, whose examples may have sets of labels."""
        if self.bootstrap < 0:
            raise UserError(f"bootstrap must be 0 (no intervals) or more resamples, found {self.bootstrap}")
        return open_source(self.dataset, self.split, self.data_dir, multi_label=True)

    def check_head(self, num_classes: int) -> None:
        """Refuses a model whose classes are not the data's.

        Raises:
          UserError: the model scores more or fewer classes than the data has.
        """
        if self.spec.num_classes != num_classes:
            raise UserError(
                f"{self.spec.name} has {self.spec.num_classes:,} classes and the model scores {num_classes:,}: its accuracy "
                "there means nothing; score a model that was trained on, or fine-tuned to, these classes (configs/finetune.py)"
            )

    def score_batch(self, model: Bound, params: Any, batch: Batch) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Returns no sums: resamples need every row, and every process draws the same resamples."""
        logits = model.forward(params, batch.image).logits
        rows = score_rows(logits, batch.target, competing=self.spec.competing, likelihood=self.likelihood or "softmax")
        return {}, rows | {"mask": batch.mask}

    def summarize(self, sums: dict[str, float], rows: dict[str, np.ndarray], seen: np.ndarray) -> Scores:
        """Figures with intervals, over the examples with a label."""
        labelled = seen & rows["labelled"]
        self._check_labels(rows, labelled)
        values = summarize({name: x[labelled] for name, x in rows.items()}, self.bootstrap)
        if not has_top5(self.spec):
            values = {name: value for name, value in values.items() if not name.startswith("top5")}
        values["num_examples"] = int(labelled.sum())
        if isinstance(self.spec.target, ClassSet):
            values["num_unlabelled"] = int((seen & ~labelled).sum())
        corrupt = len(self.source) - int(seen.sum())
        return Scores(values | ({"num_corrupt": corrupt} if corrupt else {}))

    def _check_labels(self, rows: dict[str, np.ndarray], labelled: np.ndarray) -> None:
        if not labelled.any():
            raise UserError(f"{self.dataset} {self.split}: none of its {len(self.source)} images has a label to score")
        strange = int((labelled & ~rows["possible"]).sum())
        if strange:
            raise UserError(
                f"{self.dataset} {self.split}: {counted(strange, 'image')} labelled with classes that are not among the "
                f"{len(self.spec.competing)} that compete there; expected the published data set: prepare it again"
            )
