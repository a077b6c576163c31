"""Few-shot linear accuracy: regularised least squares from frozen features, in closed form (arXiv 2010.11929, section 4.1)."""

from __future__ import annotations

import dataclasses

import numpy as np
from jax.sharding import Mesh

from vit_jax.data.source import Source
from vit_jax.evals.base import Scores
from vit_jax.evals.features import Features, Probe

# The constant feature appended for the bias, and the term that keeps its scale finite: big_vision's values.
BIAS_FEATURE = 100.0
STD_EPSILON = 1e-5


@dataclasses.dataclass(kw_only=True)
class FewShot(Probe):
    """Fits k examples per class by ridge regression on the representation (`pre_logits`) and scores the test split. Images are
    resized to 8/7 of the resolution and the centre is cropped (256 -> 224).

    Args:
      shots: examples per class, several values; a class with fewer examples uses all of them.
      seeds: each seed draws its own examples; results are the mean over seeds.
      l2_reg: weight of the squared norm, 2^10.
      Others: see `Probe`.
    """

    shots: tuple[int, ...] = (1, 5, 10)
    seeds: tuple[int, ...] = (0, 1, 2)
    l2_reg: float = 1024.0

    def score(self, train: Features, test: Features, mesh: Mesh) -> Scores:
        """Scores `{k}shot` (mean over seeds) and `{k}shot_seed{s}`, fractions in [0, 1]."""
        (train_x, train_y), (test_x, test_y) = train, test
        num_classes, order = self._sources[0].spec.num_classes, drawing_order(self._sources[0])
        scores: dict[str, float] = {}
        for k in self.shots:
            for seed in self.seeds:
                chosen = choose_examples(train_y, num_classes, k, seed, order)
                predicted = ridge_predict(
                    train_x[chosen], train_y[chosen], test_x, num_classes=num_classes, l2_reg=self.l2_reg
                )
                scores[f"{k}shot_seed{seed}"] = float(np.mean(predicted == test_y))
            scores[f"{k}shot"] = float(np.mean([scores[f"{k}shot_seed{seed}"] for seed in self.seeds]))
        return Scores(scores)


def choose_examples(
    labels: np.ndarray, num_classes: int, shots: int, seed: int, order: np.ndarray | None = None
) -> np.ndarray:
    """Indices of `shots` examples per class: one numpy generator per seed permutes each class's examples in turn.

    So a seed's 5 examples contain its 1 example, and the choice depends only on the order of the split.

    Args:
      labels: int (n,).
      num_classes: number of classes, labelled 0 to num_classes - 1.
      shots: examples per class; a class with fewer examples uses all of them.
      seed: seed of the generator.
      order: int (n,), the order in which examples are drawn; None for that of `labels`.

    Source: big_vision's few-shot evaluator, which draws from the order in which TFDS reads a split.
    """
    order = np.arange(len(labels)) if order is None else order
    rng, ordered = np.random.default_rng(seed), labels[order]
    chosen = [rng.permutation(np.where(ordered == c)[0])[:shots] for c in range(num_classes)]
    return order[np.concatenate(chosen)]


def drawing_order(source: Source) -> np.ndarray | None:
    """The order in which TFDS would read a source's examples, int (n,); None if the source is not from TFDS."""
    return source.reading_order()


def ridge_predict(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, *, num_classes: int, l2_reg: float) -> np.ndarray:
    """Predicts classes by least squares to targets in {-1, 1}^K with an L2 penalty, solved exactly.

    Features are standardised by the support set's mean and deviation (+1e-5); a constant feature 100 is appended and penalised
    like the others. With n rows and d features, the smaller of the d x d and the n x n system is solved.

    Args:
      x: float (n, d), the support set.
      y: int (n,).
      test_x: float (m, d).
      num_classes: K.
      l2_reg: penalty.

    Returns:
      int (m,).

    Source: arXiv 2010.11929 section 4.1; constants of big_vision's few-shot evaluator. Solved in float64.
    """
    x, test_x = x.astype(np.float64), test_x.astype(np.float64)
    mean, std = x.mean(axis=0), x.std(axis=0) + STD_EPSILON

    def standardize(features: np.ndarray) -> np.ndarray:
        return np.pad((features - mean) / std, ((0, 0), (0, 1)), constant_values=BIAS_FEATURE)

    x, test_x = standardize(x), standardize(test_x)
    targets = 2.0 * np.eye(num_classes)[y] - 1.0  # n c
    n, d = x.shape
    if n >= d:
        weights = np.linalg.solve(x.T @ x + l2_reg * np.eye(d), x.T @ targets)  # d c
    else:
        weights = x.T @ np.linalg.solve(x @ x.T + l2_reg * np.eye(n), targets)  # d c
    return np.argmax(test_x @ weights, axis=-1)
