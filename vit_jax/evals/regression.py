"""Errors of predicted numbers, and the share of their variance that is explained."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from vit_jax.data.open import open_source
from vit_jax.data.source import Source
from vit_jax.evals.base import Bound, Scores
from vit_jax.evals.split import ScoredSplit
from vit_jax.targets import Values
from vit_jax.types import Batch, UserError


@dataclasses.dataclass(kw_only=True)
class Regression(ScoredSplit):
    """Scores r2 (the share of variance explained), mse and mae, means over the columns, and num_examples; with several columns
    also each one's, `r2_AGE`. For each example, the arrays index, label and predicted.

    Args:
      Others: see `ScoredSplit`.
    """

    def open_split(self) -> Source:
        """The split's source, whose examples have numbers."""
        source = open_source(self.dataset, self.split, self.data_dir, multi_label=True, values=True)
        if not isinstance(source.spec.target, Values):
            raise UserError(
                f"{self.dataset}: its examples have classes; score it with an evaluator named classification"
            )
        return source

    def check_head(self, num_classes: int) -> None:
        """Refuses a model with another number of outputs than the data has columns.

        Raises:
          UserError: names both numbers.
        """
        if self.spec.num_classes != num_classes:
            raise UserError(
                f"{self.spec.name} has {self.spec.num_classes} numbers an image and the model predicts {num_classes}"
            )

    def score_batch(self, model: Bound, params: Any, batch: Batch) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Returns each row's numbers and their predictions."""
        predicted = model.forward(params, batch.image).logits
        return {}, {"predicted": predicted, "label": batch.target, "mask": batch.mask}

    def summarize(self, sums: dict[str, float], rows: dict[str, np.ndarray], seen: np.ndarray) -> Scores:
        """Figures over the examples."""
        label, predicted = (rows[name][seen].astype(np.float64) for name in ("label", "predicted"))  # n k
        error, spread = label - predicted, label - label.mean(axis=0)
        total = (spread**2).sum(axis=0)
        # As scikit-learn: a column that never varies has an R2 of 1 if it is predicted exactly, else 0.
        r2 = np.where(total > 0, 1 - (error**2).sum(axis=0) / np.where(total > 0, total, 1), (error == 0).all(axis=0))
        columns = {"r2": r2, "mse": (error**2).mean(axis=0), "mae": np.abs(error).mean(axis=0)}
        values = {name: float(x.mean()) for name, x in columns.items()}
        if len(r2) > 1:
            names = self.spec.class_names
            values |= {f"{name}_{names[i]}": float(x[i]) for name, x in columns.items() for i in range(len(r2))}
        index = np.flatnonzero(seen).astype(np.int32)
        examples = {"index": index, "label": rows["label"][seen], "predicted": rows["predicted"][seen]}
        return Scores(values | {"num_examples": len(error)}, examples)
