"""What a config and its data must agree on before a run starts."""

from __future__ import annotations

from vit_jax.config import Config
from vit_jax.train.objectives import Objective
from vit_jax.types import KINDS, DatasetSpec, Metric, UserError


def check_target(config: Config, objective: Objective, spec: DatasetSpec) -> None:
    """Refuses data whose labels are of another kind than the loss reads."""
    kind = type(spec.target).__name__
    if objective.target and kind not in objective.target:
        words = {
            "ClassId": "a class for each image",
            "ClassSet": "a set of classes for each image",
            "Values": "numbers",
        }
        wanted = " or ".join(words[name] for name in objective.target)
        raise UserError(
            f"config.objective.name={config.objective.name} reads {wanted}, and {spec.name} has {words.get(kind, kind)}; choose "
            "other data, or the objective that suits it: softmax, sigmoid (sets of classes) or regression (numbers)"
        )


def check_best(config: Config) -> None:
    """Refuses a `best_metric` that no evaluator measures, and an early stop without one."""
    best = config.checkpoint.best_metric
    if config.train.patience and not (best and config.checkpoint.keep_best):
        raise UserError(
            f"train.patience={config.train.patience} waits for a better checkpoint.best_metric and keeps that checkpoint: set "
            "checkpoint.best_metric, for example eval/dev/top1, and checkpoint.keep_best=1"
        )
    metric = Metric.parse(best)
    if best and not (metric and metric.evaluator in config.evals):
        known = ", ".join(str(Metric(kind, name, "METRIC")) for name in config.evals for kind in KINDS)
        raise UserError(f"checkpoint.best_metric is {best!r}; expected one of {known}")
