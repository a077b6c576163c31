"""The table of evaluators."""

from __future__ import annotations

from vit_jax.evals.base import Evaluator
from vit_jax.evals.classification import Classification
from vit_jax.evals.detection import Detection
from vit_jax.evals.fewshot import FewShot
from vit_jax.evals.scorecard import Scorecard

EVALUATORS: dict[str, type[Evaluator]] = {
    "classification": Classification,
    "detection": Detection,
    "fewshot": FewShot,
    "scorecard": Scorecard,
}
