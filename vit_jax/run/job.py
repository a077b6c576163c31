"""A run before it starts. Its config passes through load -> resolve -> open -> settle -> build, each step once. Everything that
can be wrong is checked; nothing is written or computed.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
from etils import epath

from vit_jax import config as configs
from vit_jax import partition
from vit_jax.config import Config, Draft
from vit_jax.convert.checkpoint import Checkpoint
from vit_jax.data.build import TrainData
from vit_jax.data.image.recipes import describe_transform, make_transform
from vit_jax.data.source import Source
from vit_jax.evals.base import Evaluator, Scorer
from vit_jax.evals.build import EVALUATORS
from vit_jax.models.build import count_params, relayout
from vit_jax.resolve import resolve
from vit_jax.run import record
from vit_jax.run.assemble import Parts, bind_evaluators, build_parts, kept_bytes
from vit_jax.run.checks import check_best, check_classes, check_sizes, check_target
from vit_jax.run.initial import keep_head, open_init
from vit_jax.run.memory import Demand, settle_memory
from vit_jax.run.schema import SCHEMA
from vit_jax.run.settle import BEFORE, Facts, Settled, check_attention, settle
from vit_jax.targets import Boxes
from vit_jax.train.checkpoint import Checkpointer
from vit_jax.train.folders import FOLDER, stored_model
from vit_jax.types import DatasetSpec, TrainState, UserError

T = TypeVar("T")
STAND_IN_OBJECTS = 100  # of an image, where no data says how many


@dataclasses.dataclass(frozen=True)
class Job:
    """A run whose config, data and lengths have been checked; nothing is written or computed yet.

    Args:
      config: the settled config.
      settled: each decision that `settle` made, with its reason.
      data: the data section.
      source: the training examples.
      evaluators: {name: evaluator}, their data opened.
      scorers: {name: function from parameters to scores}.
      specs: the DatasetSpec of the training data, then those of all data that evaluators read.
      parts: model, step and the objects that they need.
      total_steps, steps_per_epoch: optimizer steps of the run and of an epoch.
      to_steps: turns durations into steps.
      init_source: the checkpoint that the run starts from, or None.
    """

    config: Config
    settled: list[Settled]
    data: TrainData
    source: Source
    evaluators: dict[str, Evaluator]
    scorers: dict[str, Scorer]
    specs: list[DatasetSpec]
    parts: Parts
    total_steps: int
    steps_per_epoch: float
    to_steps: Callable[[int | str], int]
    init_source: Checkpoint | None = None

    @property
    def batch_size(self) -> int:
        """Examples per optimizer step."""
        return self.config.data.batch_size

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(h, w) of training batches in a round of steps, pixels."""
        return tuple(self.config.data.sizes) or (self.config.data.resolution,)

    def preprocessing(self) -> dict[str, Any]:
        """How the run's first evaluator prepares images; saved so that later users of the model prepare them the same way."""
        recipe = next((s.recipe for s in self.config.evals.values() if "recipe" in s), "eval")
        return describe_transform(make_transform(recipe, self.config.data.resolution))

    def restore(self, checkpointer: Checkpointer, workdir: epath.Path, step: int) -> tuple[TrainState, dict[str, Any]]:
        """Reads the state and meta of a checkpoint, and stacks or unstacks its layers where this run needs it.

        Raises:
          UserError: see `Checkpointer.restore`.
        """
        config, scan = self.config.to_dict(), stored_model(workdir / FOLDER / str(step)).get("scan")
        if scan is None or scan == config["model"].get("scan"):
            return checkpointer.restore(self.parts.abstract, step)
        config["model"]["scan"] = scan
        stored = build_parts(Config(config), self.total_steps, self.to_steps)
        state, meta = checkpointer.restore(stored.abstract, step)
        return relayout(state, self.parts.abstract), meta


class MissingData(UserError):  # noqa: N818  (a sweep continues without it)
    """Data that a config names cannot be opened."""


def build_job(
    draft: Draft,
    overrides: list[tuple[str, str]] | None = None,
    resumed: Mapping[str, Any] | None = None,
    begun: Mapping[str, Any] | None = None,
) -> Job:
    """Checks everything that can be checked before a run starts.

    Args:
      draft: the config as its file wrote it; not changed.
      overrides: (`a.b`, text) from `--config.a.b=text`.
      resumed: the saved config of the run being resumed, or None. Its model section is used, and the checkpoint that it
        started from is not opened again.
      begun: values that the run being resumed keeps, see `settle.begun_with`.

    Raises:
      MissingData: lists all missing data, with the commands that supply it.
      UserError: mistakes in the config, sizes that do not divide.
    """
    config = resolve(draft, SCHEMA, overrides or ())
    by_hand = frozenset(path for path, _ in overrides or ())
    same_init = resumed is not None and resumed.get("init", {}).get("path") == config.init.path
    checkpoint = None if same_init else open_init(config, by_hand)
    missing: list[str] = []
    train = _try_to_open(configs.build(TrainData, config.data).open, missing)
    facts = device_facts()._replace(
        num_classes=train.spec.num_classes if train else 0,
        data=train.spec.name if train else "",
        checkpoint=checkpoint,
        resumed=resumed["model"] if resumed and same_init else None,
        begun=begun or {},
        steps=_count_steps(config, train.spec) if train else 0,
    )
    config, decisions = settle(config, facts, by_hand)
    check_attention(config, facts)
    evaluators = {name: configs.build(EVALUATORS[s.name], s) for name, s in config.evals.items()}
    specs = [spec for evaluator in evaluators.values() for spec in _try_to_open(evaluator.open, missing) or ()]
    if missing or train is None:
        raise MissingData("\n".join(missing))
    specs = [train.spec, *specs]
    check_classes(config, specs[0])
    steps_per_epoch = specs[0].num_examples / config.data.batch_size
    total_steps = _count_steps(config, specs[0])
    if total_steps < 1:
        raise UserError(f"train.duration is {config.train.duration!r}: {total_steps} steps; make it at least one")
    to_steps = functools.partial(configs.steps, steps_per_epoch=steps_per_epoch, total=total_steps)
    config, parts, by_memory = _build(config, total_steps, to_steps, jax.devices(), facts)
    decisions += by_memory
    parts.target = specs[0].target
    check_target(config, parts.objective, specs[0])
    scorers = bind_evaluators(config, parts, evaluators)
    check_best(config)
    if config.init.path and config.init.head == "keep":
        keep_head(config, checkpoint, specs[0])
    data = configs.build(TrainData, config.data)
    lengths = total_steps, steps_per_epoch, to_steps
    return Job(config, decisions, data, train, evaluators, scorers, specs, parts, *lengths, checkpoint)


def stand_in(draft: Draft, overrides: list[tuple[str, str]], **facts: Any) -> tuple[Config, Parts]:
    """The config and parts of `stand_in_settled`."""
    return stand_in_settled(draft, overrides, **facts)[:2]


def stand_in_settled(
    draft: Draft,
    overrides: list[tuple[str, str]],
    *,
    num_classes: int,
    total_steps: int = 10_000,
    devices: Sequence[jax.Device] | None = None,
    memory: int | None = None,
) -> tuple[Config, Parts, list[Settled]]:
    """Builds the parts of a run as `build_job` does, but without any data: for a plan or a benchmark of the run.

    Args:
      draft, overrides: see `build_job`.
      num_classes: number of classes, used where the config leaves it to the data.
      total_steps: steps of the run, 100 per epoch; only the learning rate depends on it.
      devices: the devices that it is for; this machine's by default.
      memory: bytes of one of them, if it cannot be asked.

    Returns:
      The settled config, the parts, and the decisions with their reasons.
    """
    config = resolve(draft, SCHEMA, overrides)
    by_hand = frozenset(path for path, _ in overrides)
    devices = jax.devices() if devices is None else devices
    facts = device_facts(devices, memory)._replace(
        num_classes=num_classes, checkpoint=open_init(config, by_hand), steps=total_steps
    )
    config, decisions = settle(config, facts, by_hand)
    check_attention(config, facts)
    to_steps = functools.partial(configs.steps, steps_per_epoch=total_steps / 100, total=total_steps)
    config, parts, by_memory = _build(config, total_steps, to_steps, devices, facts)
    if "Boxes" in parts.objective.target:
        parts.target = Boxes(num_classes, STAND_IN_OBJECTS)
    return config, parts, decisions + by_memory


def _count_steps(config: Config, spec: DatasetSpec) -> int:
    """Optimizer steps of a run on its training data."""
    steps_per_epoch = spec.num_examples / config.data.batch_size
    return configs.steps(config.train.duration, steps_per_epoch=steps_per_epoch, path="train.duration")


def _build(
    config: Config,
    total_steps: int,
    to_steps: Callable[[int | str], int],
    devices: Sequence[jax.Device],
    facts: Facts,
) -> tuple[Config, Parts, list[Settled]]:
    """Builds the parts, and decides from their size what depends on the devices' memory."""
    draft = config.to_dict()
    if draft["model"].get("scan", "") is None:
        draft["model"]["scan"] = False  # stacked or not, parameters have the same size
    parts = build_parts(Config(draft), total_steps, to_steps, devices)
    if config.data.sizes:
        check_sizes(config, parts.model, parts.abstract.params)
    params = 4 * count_params(parts.abstract.params)
    demand = Demand(
        state=parts.state_bytes - params,
        params=params,
        kept=functools.cache(lambda scan, remat: kept_bytes(config, scan=scan, remat=remat)),
        layers=config.model.get("depth") or 12,
        classes=config.model.num_classes or 0,
        half=config.model.get("dtype") == "bfloat16",
        backend=facts.backend,
    )
    settled, decisions = settle_memory(config, facts, demand)
    if decisions:
        parts = build_parts(settled, total_steps, to_steps, devices)
    return settled, parts, decisions


def device_facts(devices: Sequence[jax.Device] | None = None, memory: int | None = None) -> Facts:
    """The facts about devices; by default, about those of this run.

    Args:
      devices: the devices.
      memory: bytes of one of them, if they are not here.
    """
    backend, devices = (jax.default_backend(), jax.devices()) if devices is None else (devices[0].platform, devices)
    capability = str(getattr(devices[0], "compute_capability", ""))  # "9.0"; of other vendors' GPUs a name
    return Facts(
        backend,
        capability=float(capability) if re.fullmatch(r"\d+\.\d+", capability) else 0.0,
        devices=len(devices),
        splits=partition.splits(devices),
        memory=partition.device_memory(devices) if memory is None else memory,
    )


def _try_to_open(open_data: Callable[[], T], missing: list[str]) -> T | None:
    """Returns the result of `open_data`. If that fails, adds its message to `missing` and returns None."""
    try:
        return open_data()
    except UserError as error:
        missing += [str(error)] if str(error) not in missing else []
        return None


def saved_config(folder: epath.Path) -> dict[str, Any] | None:
    """The config of the run being resumed. Keys added by newer versions get their defaults, which is how the older version
    behaved."""
    saved = record.saved_config(folder)
    return saved if saved is None or set(saved) != set(configs.SECTIONS) else fill_saved(saved)


def fill_saved(saved: dict[str, Any]) -> dict[str, Any]:
    """Adds the defaults of missing keys to a config that an older version saved."""
    try:
        config = resolve(saved, SCHEMA)
    except UserError:  # the mistake is then reported as a difference from the current config
        return configs.to_dict(Draft(saved))
    backend = jax.default_backend()
    return configs.to_dict(settle(config, Facts(backend, begun=BEFORE | {"scan": backend == "cpu"}))[0])
