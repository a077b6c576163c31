"""Mistakes of a config that show only beside its data: classes, kinds of labels, metrics that nothing measures."""

from __future__ import annotations

from typing import Any

import jax

from vit_jax import config as configs
from vit_jax.config import Config
from vit_jax.models.base import ImageModel
from vit_jax.models.build import MODELS, abstract_params
from vit_jax.train.objectives import OBJECTIVES, Objective
from vit_jax.types import KINDS, DatasetSpec, Metric, UserError


def check_classes(config: Config, spec: DatasetSpec) -> None:
    """Refuses a model whose head has fewer outputs than the data has classes."""
    if MODELS[config.model.name].classifies and config.model.num_classes < spec.num_classes:
        raise UserError(
            f"config.model.num_classes is {config.model.num_classes}, but {spec.name} has {spec.num_classes} "
            f"classes; leave it out to take the data's"
        )


def check_target(config: Config, objective: Objective, spec: DatasetSpec) -> None:
    """Refuses data whose labels are of another kind than the loss reads."""
    kind = type(spec.target).__name__
    if objective.target and kind not in objective.target:
        words = {
            "ClassId": "a class for each image",
            "ClassSet": "a set of classes for each image",
            "Values": "numbers",
            "Boxes": "boxes",
        }
        wanted = " or ".join(words[name] for name in objective.target)
        raise UserError(
            f"config.objective.name={config.objective.name} reads {wanted}, and {spec.name} has {words.get(kind, kind)}; choose "
            "other data, or the objective that suits it: softmax, sigmoid (sets of classes), regression (numbers) or detection "
            "(boxes; configs/detection.py)"
        )


def check_sizes(config: Config, model: ImageModel, params: Any) -> None:
    """Refuses `data.sizes` that the model cannot take.

    Args:
      config: settled, with sizes.
      model: its model.
      params: shapes of the parameters for images of the resolution.

    Raises:
      UserError: the patch divides not all of them, or the model or the loss is made for one grid of patches.
    """
    (h, w), sizes, wrong = config.data.resolution, tuple(config.data.sizes), []
    for size in dict.fromkeys(sizes):
        if (fit := model.suit(size)) != size:
            wrong.append(f"{size[0]}x{size[1]} is not divisible by the patch, and {fit[0]}x{fit[1]} is")
    if "grid" in configs.hints(OBJECTIVES[config.objective.name]):
        wrong.append(f"config.objective.name={config.objective.name} hides patches of one grid; leave data.sizes out")
    # Shapes at another size show tables that those at a turned one, 4x6 patches in place of 6x4, would not.
    elif any(model.table_grid(size) != model.table_grid((h, w)) for size in sizes) and _shapes(params) != _shapes(
        abstract_params(model, (2 * h, 2 * w))
    ):
        gh, gw = model.table_grid((h, w))
        wrong.append(
            f"config.model.name={config.model.name} has parameters for one grid of patches, {gh}x{gw}; leave data.sizes out, or "
            "choose a model for any size: fixed positions (model.positions=sincos_2d), or a detector with a model.position_grid"
        )
    if wrong:
        raise UserError("\n".join(f"data.sizes: {text}" for text in wrong))


def _shapes(params: Any) -> list[tuple[int, ...]]:
    return [x.shape for x in jax.tree.leaves(params)]


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
