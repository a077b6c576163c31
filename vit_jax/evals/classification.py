"""Top-1, top-5 and loss over a whole split: every example once, the last batch padded and masked, the count asserted."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.data.open import open_source
from vit_jax.data.source import Source
from vit_jax.evals import confusion
from vit_jax.evals.base import Bound, Scorer, Scores, has_top5
from vit_jax.evals.confusion import MOST_CLASSES
from vit_jax.evals.scoring import keep_competing
from vit_jax.evals.split import ScoredSplit
from vit_jax.metrics.means import Mean
from vit_jax.targets import ClassSet
from vit_jax.types import Batch, UserError


@dataclasses.dataclass(kw_only=True)
class Classification(ScoredSplit):
    """Scores the classifier itself: top1, top5 if there are more than five classes (fractions), loss (the training objective's)
    and num_examples; for each example, the arrays of `list_predictions`.

    Args:
      recipe: `eval` squashes images to the resolution, as in the release; `eval_crop` keeps their aspect and crops the middle.
      confusion: draw the confusion matrix, of at most 50 classes, in one PNG at each evaluation.
      Others: see `ScoredSplit`.
    """

    recipe: Literal["eval", "eval_crop"] = "eval"
    confusion: bool = False

    def open_split(self) -> Source:
        """The split's source; of examples with sets of labels, a prediction in the set is right, and the means leave out those
        without a label."""
        source = open_source(self.dataset, self.split, self.data_dir, multi_label=True)
        if self.confusion and (isinstance(source.spec.target, ClassSet) or source.spec.num_classes > MOST_CLASSES):
            found = "sets of labels" if isinstance(source.spec.target, ClassSet) else f"{source.spec.num_classes:,}"
            raise UserError(
                f"{self.dataset}: confusion=True draws at most {MOST_CLASSES} classes, one of each example, and this data has "
                f"{found}; leave it out"
            )
        return source

    def bind(self, model: Bound) -> Scorer:
        """See `ScoredSplit.bind`; the training objective must be one for this kind of label."""
        kind, known = type(self.spec.target).__name__, model.objective.target if model.objective else ()
        if kind == "ClassSet" and kind not in known:
            raise UserError(
                f"{self.dataset}: its examples have sets of labels, of which the training objective has no loss; score it with "
                "an evaluator named scorecard"
            )
        return super().bind(model)

    def check_head(self, num_classes: int) -> None:
        """Refuses a model that has no score for some class of the data.

        Raises:
          UserError: the data has more classes than the model.
        """
        if self.spec.num_classes > num_classes:
            raise UserError(
                f"{self.spec.name} has {self.spec.num_classes:,} classes and the model scores {num_classes:,}; evaluate on data "
                "of the training set's classes"
            )

    def score_batch(self, model: Bound, params: Any, batch: Batch) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Sums hits and losses; for each row, returns the label, the predicted class with its softmax, and the mask."""
        assert model.objective is not None, "the loss is the objective's"
        competing = self.spec.competing
        outputs = model.forward(params, batch.image)
        logits = keep_competing(outputs.logits, competing)
        _, best = jax.lax.top_k(logits, min(5, len(competing) or logits.shape[-1]))  # b k
        mask, predictions = batch.mask, {"label": batch.target}
        if isinstance(self.spec.target, ClassSet):
            mask, predictions = jnp.where(batch.target.any(axis=1), mask, 0.0), {}
            hits = jnp.cumsum(jnp.take_along_axis(batch.target, best, axis=1), axis=1) > 0  # b k
            top1, top5 = (jnp.where(hits[:, k], mask, 0.0) for k in (0, -1))
        else:
            hits = jnp.where(best == batch.target[:, None], mask[:, None], 0.0)
            top1, top5 = hits[:, 0], hits
        loss = jnp.where(mask > 0, model.objective.values(outputs, batch)["loss"], 0.0)
        sums = {"top1": top1.sum(), "top5": top5.sum(), "loss": loss.sum(), "count": mask.sum()}
        # Compute the softmax of the best class only, so that no array of all probabilities is kept.
        confidence = jnp.exp(logits.max(axis=-1) - jax.nn.logsumexp(logits, axis=-1))
        return sums, predictions | {"predicted": best[:, 0], "confidence": confidence, "mask": batch.mask}

    def summarize(self, sums: dict[str, float], rows: dict[str, np.ndarray], seen: np.ndarray) -> Scores:
        """Means over the examples, and the predictions of each."""
        count = sums.pop("count")
        if not has_top5(self.spec):
            del sums["top5"]
        values = {name: Mean(total, count).value for name, total in sums.items()} | {"num_examples": int(count)}
        examples = list_predictions(rows, seen)
        if not self.confusion:
            return Scores(values, examples)
        counts = confusion.count(examples["label"], examples["predicted"], self.spec.num_classes)
        title = f"{self.split}: top-1 {values['top1']:.1%} of {int(count):,}"
        return Scores(values, examples, confusion.draw(counts, self.spec.class_names, title))


def list_predictions(rows: dict[str, np.ndarray], seen: np.ndarray) -> dict[str, np.ndarray]:
    """The prediction for each scored example, in the split's order.

    Args:
      rows: label, predicted and confidence of one pass, (n,) each, in order.
      seen: bool (n,), False for padding and corrupt images.

    Returns:
      index (in the split), label, predicted (int32), confidence (float32, softmax of the predicted class), each (n,); no label of
      examples with sets of them.
    """
    (index,) = np.nonzero(seen)
    return {"index": index.astype(np.int32)} | {name: values[index] for name, values in rows.items()}
