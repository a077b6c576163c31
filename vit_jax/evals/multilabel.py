"""Mean average precision of a classifier on images with sets of labels."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.data.open import open_source
from vit_jax.data.source import Source
from vit_jax.evals.base import Bound, Scores
from vit_jax.evals.split import ScoredSplit
from vit_jax.targets import ClassSet
from vit_jax.types import Batch, UserError


@dataclasses.dataclass(kw_only=True)
class MultiLabel(ScoredSplit):
    """Scores map (the mean over classes of the average precision), top1 (the likeliest class is one of the image's), loss (the
    training objective's) and num_examples. Classes that no image of the split has are left out of map. The scores of all examples
    are in memory at the end of the pass.

    Args:
      Others: see `ScoredSplit`.
    """

    def open_split(self) -> Source:
        """The split's source, whose examples have sets of labels."""
        source = open_source(self.dataset, self.split, self.data_dir, multi_label=True)
        if not isinstance(source.spec.target, ClassSet):
            raise UserError(
                f"{self.dataset}: its examples have one label each; score it with an evaluator named classification"
            )
        return source

    def check_head(self, num_classes: int) -> None:
        """Refuses a model with another number of classes than the data.

        Raises:
          UserError: names both numbers.
        """
        if self.spec.num_classes != num_classes:
            raise UserError(
                f"{self.spec.name} has {self.spec.num_classes:,} classes and the model scores {num_classes:,}"
            )

    def score_batch(self, model: Bound, params: Any, batch: Batch) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Returns the sum of losses, and each row's scores and labels."""
        assert model.objective is not None, "the loss is the objective's"
        outputs = model.forward(params, batch.image)
        loss = jnp.where(batch.mask > 0, model.objective.values(outputs, batch)["loss"], 0.0)
        return {"loss": loss.sum()}, {"scores": outputs.logits, "label": batch.target, "mask": batch.mask}

    def summarize(self, sums: dict[str, float], rows: dict[str, np.ndarray], seen: np.ndarray) -> Scores:
        """Figures over the examples."""
        scores, label = rows["scores"][seen], rows["label"][seen] > 0  # n c
        count = len(scores)
        precision = [average_precision(scores[:, c], label[:, c]) for c in np.flatnonzero(label.any(axis=0))]
        if not precision:
            raise UserError(f"{self.dataset} {self.split}: none of its {count} images has a label to score")
        top1 = label[np.arange(count), scores.argmax(axis=1)].mean()
        values = {"map": float(np.mean(precision)), "top1": float(top1), "loss": sums["loss"] / count}
        return Scores(values | {"num_examples": count})


def average_precision(scores: np.ndarray, right: np.ndarray) -> float:
    """The sum over thresholds of (rise in recall) x precision, as scikit-learn's `average_precision_score`: equal scores are one
    threshold, and nothing is interpolated.

    Args:
      scores: float (n,).
      right: bool (n,), at least one.
    """
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(right[order])
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # the last of each run of equal scores
    recall = hits[ends] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * hits[ends] / (ends + 1)))
