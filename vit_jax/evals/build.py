"""The table of evaluators."""

from __future__ import annotations

from vit_jax.evals.base import Evaluator
from vit_jax.evals.classification import Classification
from vit_jax.evals.fewshot import FewShot
from vit_jax.evals.linear import LinearProbe
from vit_jax.evals.multilabel import MultiLabel
from vit_jax.evals.neighbours import NearestNeighbours
from vit_jax.evals.reconstruction import Reconstruction
from vit_jax.evals.regression import Regression
from vit_jax.evals.scorecard import Scorecard

EVALUATORS: dict[str, type[Evaluator]] = {
    "classification": Classification,
    "fewshot": FewShot,
    "knn": NearestNeighbours,
    "linear": LinearProbe,
    "multilabel": MultiLabel,
    "regression": Regression,
    "scorecard": Scorecard,
    "reconstruction": Reconstruction,
}
