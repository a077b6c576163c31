"""Builds the parts of a run from a settled config: each section is handed to the function that reads it.

Building the parts allocates, compiles and opens nothing. The caller requests each costly step, so a benchmark or a planner
pays only for the steps that it uses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax

from vit_jax import config as configs
from vit_jax import partition
from vit_jax.config import Config
from vit_jax.flops import count_flops
from vit_jax.models import build as models
from vit_jax.models.base import ImageModel
from vit_jax.models.layers import find_layers
from vit_jax.targets import ClassId, Target
from vit_jax.train import step as steps
from vit_jax.train.groups import Groups, make_groups
from vit_jax.train.loop import TrainSettings
from vit_jax.train.masking import Drawn, PatchGrid
from vit_jax.train.mixing import make_mix
from vit_jax.train.objectives import OBJECTIVES, Objective
from vit_jax.train.optim import make_optimizer
from vit_jax.types import Batch, TrainState, UserError

if TYPE_CHECKING:  # only code that reads data imports the data room
    from vit_jax.evals.base import Evaluator, Scorer

UNUSUAL = 61  # a batch size that divides no axis of a parameter


def build_model(config: Config) -> ImageModel:
    """Builds the linen module of a settled config.

    Raises:
      UserError: no objective or evaluator of images reads this model's outputs.
    """
    if config.model.get("pool") == "unpooled":
        raise UserError(
            "model.pool=unpooled scores every token; training and evaluation need one score an image: gap, token, map"
        )
    return configs.build(models.MODELS[config.model.name], config.model)


@dataclasses.dataclass
class Parts:
    """A training step and the objects that it needs, built from a settled config; nothing is allocated or compiled yet."""

    model: ImageModel
    forward: models.Forward
    objective: Objective
    optimizer: optax.GradientTransformation
    mesh: jax.sharding.Mesh
    train_step: steps.TrainStep
    abstract: TrainState
    settings: TrainSettings
    rng: jax.Array
    groups: Groups | None = None
    target: Target | None = None  # of the training data; a class per example until that is known

    @property
    def state_bytes(self) -> int:
        """Bytes of the whole state and of the gradients."""
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((self.abstract, self.abstract.params)))

    def trace(self, batch_size: int, resolution: tuple[int, int]) -> tuple[jax.stages.Traced, int]:
        """Traces the step on shapes alone; returns the trace and the FLOPs of one example."""
        sharding = partition.batch_sharding(self.mesh)
        one = Batch(
            np.empty((1, *resolution, 3), np.uint8), (self.target or ClassId(1)).empty(1), np.ones(1, np.float32)
        )
        batch = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype, sharding=sharding), one
        )
        traced = steps.jit_train_step(self.train_step, self.abstract, self.mesh).trace(self.abstract, batch)
        return traced, count_flops(traced.jaxpr) // batch_size

    def compile(self, batch_size: int, resolution: tuple[int, int]) -> tuple[jax.stages.Compiled, int]:
        """Compiles the step; returns the executable and the FLOPs of one example."""
        traced, flops = self.trace(batch_size, resolution)
        return traced.lower().compile(), flops

    def compile_each(self, batch_size: int, sizes: Sequence[tuple[int, int]]) -> tuple[steps.TrainStep, int]:
        """Compiles the step for each distinct size of images, one after another: processes must compile in one order. Returns a
        step that takes any of them, and the FLOPs of one example, a mean over `sizes`."""
        compiled = {size: self.compile(batch_size, size) for size in dict.fromkeys(sizes)}
        flops = sum(compiled[size][1] for size in sizes) // len(sizes)
        programs = {size: program for size, (program, _) in compiled.items()}
        return (steps.StepBySize(programs) if len(programs) > 1 else programs[sizes[0]]), flops

    def mean_flops(self, batch_size: int, sizes: Sequence[tuple[int, int]]) -> int:
        """FLOPs of one example, a mean over sizes of images."""
        flops = {size: self.trace(batch_size, size)[1] for size in dict.fromkeys(sizes)}
        return sum(flops[size] for size in sizes) // len(sizes)

    def draw_state(self, params: Any) -> TrainState:
        """Builds the state of step 0 from a tree of host parameters."""
        average = self.abstract.average is not None
        return steps.init_state(params, self.optimizer, self.rng, self.mesh, average=average)


def build_parts(
    config: Config, total_steps: int, to_steps: Callable[[int | str], int], devices: Sequence[jax.Device] | None = None
) -> Parts:
    """Builds model, objective, optimizer, mesh and step of a settled config, for all devices or those given."""
    settings = configs.build(TrainSettings, config.train, to_steps)
    mesh = partition.make_mesh(settings.fsdp or 1, devices)
    accumulation = settings.accumulation or 1
    partition.check_batch_size(config.data.batch_size, mesh, accumulation=accumulation)
    model = build_model(config)
    forward = partition.on_mesh(models.make_forward(model), mesh)
    objective = build_objective(config, model).on_mesh(mesh)
    mix = make_mix(settings.mixup, settings.cutmix)
    if mix and not objective.linear:
        raise UserError(
            f"train.mixup and train.cutmix mix targets, and the loss of config.objective.name={config.objective.name} is not "
            "linear in its target; set both to 0"
        )
    outputs, shapes = models.abstract_model(model, config.data.resolution)
    layers, optim = find_layers(shapes), config.optim
    groups = make_groups(layers, optim.layer_decay, optim.freeze, optim.multipliers)
    optimizer, schedule = configs.build(make_optimizer, optim, to_steps, total_steps=total_steps, layers=layers)
    train_step = steps.make_train_step(
        forward=forward,
        objective=objective,
        optimizer=optimizer,
        schedule=schedule,
        mesh=mesh,
        accumulation=accumulation,
        average_decay=settings.average_decay,
        mix=mix,
        frozen=groups.frozen if groups else frozenset(),
    )
    rng = jax.random.fold_in(jax.random.key(config.seed), 1)
    objective.check_reads(outputs, objective=config.objective.name, model=config.model.name)
    abstract = steps.abstract_state(shapes, optimizer, rng, mesh, average=bool(settings.average_decay))
    return Parts(model, forward, objective, optimizer, mesh, train_step, abstract, settings, rng, groups)


def kept_bytes(config: Config, *, scan: bool, remat: str) -> int:
    """Bytes that the forward pass of a settled config keeps of an image for the backward pass, from shapes alone.

    Args:
      config: the config.
      scan, remat: values of the model's keys of these names, where it has them.
    """
    draft = config.to_dict()
    draft["model"] |= {key: x for key, x in {"scan": scan, "remat": remat}.items() if key in draft["model"]}
    model = build_model(Config(draft))
    forward, objective = models.make_forward(model), build_objective(config, model)
    _, params = models.abstract_model(model, config.data.resolution)
    images = jax.ShapeDtypeStruct((UNUSUAL, *config.data.resolution, 3), np.uint8)

    def backward(params: Any, images: jax.Array) -> Any:
        key = jax.random.key(0)
        drawn = objective.draw(jax.random.split(key, UNUSUAL)) if objective.draw else Drawn()
        return jax.vjp(lambda params: objective.run(forward, params, images, drawn, train=True, rng=key), params)[1]

    leaves = jax.tree.leaves(jax.eval_shape(backward, params, images))
    # Those of a batch: its axis is the first, or the second under a scan.
    return sum(x.size * x.dtype.itemsize for x in leaves if any(n % UNUSUAL == 0 for n in x.shape[:2])) // UNUSUAL


def build_objective(config: Config, model: ImageModel) -> Objective:
    """Builds the objective of a settled config; one that hides patches is given those of the model's images."""
    make, resolution = OBJECTIVES[config.objective.name], config.data.resolution
    given: dict[str, Any] = {}
    if "grid" in configs.hints(make):
        gh, gw = model.grid(resolution)
        given["grid"] = PatchGrid((gh, gw), (resolution[0] // max(gh, 1), resolution[1] // max(gw, 1)))
    return configs.build(make, config.objective, **given)


def bind_evaluators(config: Config, parts: Parts, evaluators: dict[str, Evaluator]) -> dict[str, Scorer]:
    """Binds each evaluator to the model: {evaluator's name: function from parameters to scores}.

    Raises:
      UserError: an evaluator refuses the model; the message names the evaluator's section.
    """
    from vit_jax.evals.base import Bound

    scorers = {}
    shapes, grid = parts.abstract.params, parts.model.grid
    bound = Bound(parts.forward, parts.objective, parts.mesh, config.model.num_classes, grid, shapes)
    for name, evaluator in evaluators.items():
        try:
            scorers[name] = evaluator.bind(bound)
        except UserError as error:
            raise UserError(f"config.evals.{name}: {error}") from error
    return scorers


def grid_of(config: Config) -> tuple[int, int]:
    """(gh, gw) of the stored positions."""
    return build_model(config).table_grid(config.data.resolution)
