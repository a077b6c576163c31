"""A run before it starts: its config, data and lengths, all that can be wrong with them checked, nothing written or computed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import ml_collections
from etils import epath

from vit_jax import config as configs
from vit_jax import partition, record
from vit_jax.assemble import Parts, build_parts, complete_saved, follow_init, open_data, resolve
from vit_jax.data.image.recipes import describe_transform, make_transform
from vit_jax.initial import keep_head
from vit_jax.types import DatasetSpec, UserError


@dataclasses.dataclass(frozen=True)
class Job:
    """A run whose config, data and lengths have been checked; nothing is written or computed yet."""

    config: ml_collections.ConfigDict
    data: Any
    source: Any
    evaluators: dict[str, Any]
    specs: list[DatasetSpec]
    parts: Parts
    total_steps: int
    steps_per_epoch: float
    to_steps: Callable[[int | str], int]
    init_source: Any = None

    @property
    def batch_size(self) -> int:
        """Examples per optimizer step."""
        return self.config.data.batch_size

    def preprocessing(self) -> dict[str, Any]:
        """How images are prepared for the model, saved for whoever uses it later: as its first evaluator prepares them."""
        recipe = next((e.recipe for e in self.evaluators.values() if hasattr(e, "recipe")), "eval")
        return describe_transform(make_transform(recipe, self.config.data.resolution))


def prepare(
    config: ml_collections.ConfigDict,
    overrides: list[tuple[str, str]] | None = None,
    resumed: dict[str, Any] | None = None,
) -> Job:
    """Checks everything that can be checked before a run starts; `resumed` is the config of the run that goes on.

    Raises:
      UserError: mistakes in the config, missing data, sizes that do not divide.
    """
    resolve(config, overrides)
    init_source = follow_init(config, overrides, resumed)
    data, source, evaluators, specs = open_data(config)
    steps_per_epoch = specs[0].num_examples / config.data.batch_size
    total_steps = configs.steps(config.train.duration, steps_per_epoch=steps_per_epoch, path="train.duration")
    if total_steps < 1:
        raise UserError(f"train.duration is {config.train.duration!r}: {total_steps} steps; make it at least one")
    to_steps = functools.partial(configs.steps, steps_per_epoch=steps_per_epoch, total=total_steps)
    parts = build_parts(config, total_steps, to_steps)
    for name, section in config.evals.items():
        partition.check_batch_size(section.batch_size, parts.mesh, path=f"evals.{name}.batch_size")
    best = config.checkpoint.best_metric
    known = tuple(f"{kind}/{name}/" for name in config.evals for kind in ("eval", "eval_average"))
    if best and not best.startswith(known):
        raise UserError(f"checkpoint.best_metric is {best!r}; expected METRIC after one of {', '.join(known)}")
    if config.init.path and config.init.head == "keep":
        keep_head(config, init_source, specs[0])
    return Job(config, data, source, evaluators, specs, parts, total_steps, steps_per_epoch, to_steps, init_source)


def saved_config(folder: epath.Path) -> dict[str, Any] | None:
    """The config of the run that goes on. Keys that it could not know have their defaults: what was done without them."""
    saved = record.saved_config(folder)
    return saved if saved is None or set(saved) != set(configs.SECTIONS) else complete_saved(saved)
