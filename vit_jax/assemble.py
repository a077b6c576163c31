"""From a config to the parts of a run: each section is checked against, and handed to, the function that reads it.

With `run`, the composition root: these two files know every room. Building parts allocates, compiles and opens nothing;
that is asked for piece by piece, so that a benchmark or a planner pays only for what it uses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from vit_jax import config as configs
from vit_jax import partition
from vit_jax.bench.flops import count_flops
from vit_jax.initial import Init, adopt_source
from vit_jax.models import build as models
from vit_jax.train import step as steps
from vit_jax.train.checkpoint import Checkpointer
from vit_jax.train.loop import TrainSettings
from vit_jax.train.mixing import make_mix
from vit_jax.train.objectives import OBJECTIVES
from vit_jax.train.optim import make_optimizer
from vit_jax.types import Batch, DatasetSpec, TrainState, UserError


def complete(config: ml_collections.ConfigDict) -> list[str]:
    """Writes signature defaults into every section, in place, and lists all that is wrong with it."""
    from vit_jax.data.build import TrainData
    from vit_jax.evals.build import EVALUATORS

    errors = []

    def check(section: Any, fn: Any, path: str, *injected: str) -> None:
        errors.extend(configs.complete(section, fn, path, injected))

    def named(section: Any, table: dict[str, Any], path: str) -> Any:
        name = section.get("name")
        if isinstance(name, str) and name in table:
            return table[name]
        errors.append(f"config.{path}.name is {name!r}; {configs.nearest(str(name), table)}")
        return None

    if fn := named(config.model, models.MODELS, "model"):
        check(config.model, fn, "model")
    check(config.data, TrainData, "data")
    if fn := named(config.objective, OBJECTIVES, "objective"):
        check(config.objective, fn, "objective")
    check(config.optim, make_optimizer, "optim", "total_steps")
    check(config.train, TrainSettings, "train")
    for name, section in config.evals.items():
        if fn := named(section, EVALUATORS, f"evals.{name}"):
            check(section, fn, f"evals.{name}")
    check(config.checkpoint, Checkpointer, "checkpoint", "directory")
    check(config.init, Init, "init")
    if not isinstance(config.seed, int) or config.seed < 0:
        errors.append(f"config.seed is {config.seed!r}; expected an integer, 0 or more")
    return errors


def complete_saved(saved: dict[str, Any]) -> dict[str, Any]:
    """A config that an older version saved, with the defaults of keys that it could not know."""
    config = ml_collections.ConfigDict(saved)
    if not complete(config):  # a mistake is a difference to the config of today, and told as that
        inherit(config)
    return configs.to_dict(config)


def resolve(config: ml_collections.ConfigDict, overrides: list[tuple[str, str]] | None = None) -> None:
    """Completes a config, applies overrides, checks it, and lets evaluators inherit the training data's keys.

    `model.dtype = "auto"` becomes bfloat16 on an accelerator and float32 on a CPU, which has no fast bfloat16;
    `model.scan = "auto"` becomes true on a CPU, where scanned layers compile in half the time, and false elsewhere.

    Raises:
      UserError: every mistake found, one per line.
    """
    _suit_device(config)
    errors = complete(config)
    if not errors and overrides:
        configs.override(config, overrides)
        _suit_device(config)
        errors = complete(config)
    if errors:
        raise UserError("\n".join(errors))
    inherit(config)
    config.lock()


def inherit(config: ml_collections.ConfigDict) -> None:
    """Writes into the evaluators what they leave to the data section and to the objective, in place."""
    with config.unlocked(), config.ignore_type():
        for section in config.evals.values():
            for key in ("dataset", "data_dir", "exif", "resolution"):
                if key in section and section[key] in ("", (0, 0)):
                    section[key] = config.data[key]
            if section.get("likelihood") == "":
                section.likelihood = "sigmoid" if config.objective.name == "sigmoid" else "softmax"


def follow_init(
    config: ml_collections.ConfigDict,
    overrides: list[tuple[str, str]] | None = None,
    resumed: dict[str, Any] | None = None,
) -> Any:
    """Lets a resolved config's model follow the checkpoint of `init`, if it names one: see `initial.adopt_source`.

    Args:
      config: resolved, changed in place.
      overrides: those given to `resolve`; what they set stays.
      resumed: the config saved with a run that goes on, which then does not need the checkpoint any more.

    Returns:
      The checkpoint as it was opened (a `convert.checkpoint.Checkpoint`), or None.

    Raises:
      UserError: the checkpoint cannot be read, or its model contradicts the config.
    """
    source = adopt_source(config, {path for path, _ in overrides or ()}, resumed)
    if errors := complete(config):
        raise UserError("\n".join(errors))
    return source


def _suit_device(config: ml_collections.ConfigDict) -> None:
    on_cpu = jax.default_backend() == "cpu"
    choices = {"dtype": "float32" if on_cpu else "bfloat16", "scan": on_cpu}
    with config.unlocked(), config.ignore_type():
        for key, choice in choices.items():
            if config.model.get(key) == "auto":
                config.model[key] = choice


def build_model(config: ml_collections.ConfigDict) -> Any:
    """The linen module of a resolved config.

    Raises:
      UserError: a model whose outputs no objective or evaluator of images reads.
    """
    if config.model.get("pool") == "unpooled":
        raise UserError(
            "model.pool=unpooled scores every token; training and evaluation need one score an image: gap, token, map"
        )
    return configs.build(models.MODELS[config.model.name], config.model)


class MissingData(UserError):  # noqa: N818  (a sweep goes on without it)
    """Data that a config names cannot be opened."""


@dataclasses.dataclass
class Parts:
    """A training step and what it needs, built from a resolved config; nothing is allocated or compiled yet."""

    model: Any
    forward: Callable[..., Any]
    objective: Callable[..., Any]
    optimizer: Any
    mesh: Any
    train_step: Any
    abstract: TrainState
    settings: TrainSettings
    rng: jax.Array

    def trace(self, batch_size: int, resolution: tuple[int, int]) -> tuple[Any, int]:
        """Traces the step, on shapes alone; returns it with the FLOPs of one example in it."""
        sharding = partition.batch_sharding(self.mesh)
        shapes = {"image": ((*resolution, 3), np.uint8), "target": ((), np.int32), "mask": ((), np.float32)}
        batch = Batch(
            **{k: jax.ShapeDtypeStruct((batch_size, *s), d, sharding=sharding) for k, (s, d) in shapes.items()}
        )
        traced = steps.jit_train_step(self.train_step, self.abstract, self.mesh).trace(self.abstract, batch)
        return traced, count_flops(traced.jaxpr) // batch_size

    def compile(self, batch_size: int, resolution: tuple[int, int]) -> tuple[Any, int]:
        """Compiles the step; returns it with the FLOPs of one example in it."""
        traced, flops = self.trace(batch_size, resolution)
        return traced.lower().compile(), flops

    def draw_state(self, params: Any) -> TrainState:
        """The state of step 0 around a tree of host parameters."""
        average = self.abstract.average is not None
        return steps.init_state(params, self.optimizer, self.rng, self.mesh, average=average)


def build_parts(config: ml_collections.ConfigDict, total_steps: int, to_steps: Callable[[int | str], int]) -> Parts:
    """Builds model, objective, optimizer, mesh and step of a resolved config whose number of classes is known."""
    settings = configs.build(TrainSettings, config.train, to_steps)
    mesh = partition.make_mesh(settings.fsdp)
    partition.check_batch_size(config.data.batch_size, mesh, accumulation=settings.accumulation)
    model = build_model(config)
    forward = models.make_forward(model)
    objective = configs.build(OBJECTIVES[config.objective.name], config.objective)
    optimizer, schedule = configs.build(make_optimizer, config.optim, to_steps, total_steps=total_steps)
    train_step = steps.make_train_step(
        forward=forward,
        objective=objective,
        optimizer=optimizer,
        schedule=schedule,
        mesh=mesh,
        accumulation=settings.accumulation,
        average_decay=settings.average_decay,
        mix=make_mix(settings.mixup, settings.cutmix),
    )
    rng = jax.random.fold_in(jax.random.key(config.seed), 1)
    shapes = models.abstract_params(model, config.data.resolution)
    abstract = steps.abstract_state(shapes, optimizer, rng, mesh, average=bool(settings.average_decay))
    return Parts(model, forward, objective, optimizer, mesh, train_step, abstract, settings, rng)


def open_data(config: ml_collections.ConfigDict) -> tuple[Any, Any, dict[str, Any], list[DatasetSpec]]:
    """Opens every data set the config names, the evaluators' included, and fixes the number of classes.

    Returns:
      (data section, training source, evaluators not yet given their steps, one spec per split).

    Raises:
      MissingData: what is missing, all of it, with the commands that supply it.
      UserError: the model's classes are not the data's.
    """
    from vit_jax.data.build import TrainData
    from vit_jax.evals.build import EVALUATORS
    from vit_jax.evals.classification import Classification
    from vit_jax.evals.scorecard import Scorecard

    data = configs.build(TrainData, config.data)
    evaluators = {name: configs.build(EVALUATORS[s.name], s) for name, s in config.evals.items()}
    errors, specs = [], []
    source = None
    for opened in (data, *evaluators.values()):
        try:
            found = opened.open()
            specs.extend(found if isinstance(found, list) else [found.spec])
            source = source or found
        except UserError as error:
            if str(error) not in errors:
                errors.append(str(error))
    if errors:
        raise MissingData("\n".join(errors))
    if not config.model.num_classes:
        with config.unlocked():
            config.model.num_classes = specs[0].num_classes
    if config.model.num_classes < specs[0].num_classes:
        raise UserError(
            f"config.model.num_classes is {config.model.num_classes}, but {specs[0].name} has {specs[0].num_classes} "
            f"classes; set it to 0 to take the data's"
        )
    for name, evaluator in evaluators.items():
        if isinstance(evaluator, Classification | Scorecard):
            try:
                evaluator.check_head(config.model.num_classes)
            except UserError as error:
                raise UserError(f"config.evals.{name}: {error}") from error
    return data, source, evaluators, specs


def grid_of(config: ml_collections.ConfigDict) -> tuple[int, int]:
    """Tokens per image, (gh, gw)."""
    return models.token_grid(build_model(config), config.data.resolution)
