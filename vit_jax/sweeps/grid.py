"""The runs of a sweep: for each task the candidates on its development split, then the final runs of the best candidate.

A config file with `get_sweep(arg)` describes a sweep. It returns a dict of `Sweep`'s fields, in which each task also has the
configs of its runs, `dev` and `final`, in the form that `vit_jax train` accepts. So every run is also a command of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ml_collections

from vit_jax import config as configs
from vit_jax.resolve import override
from vit_jax.run.record import may_change
from vit_jax.sweeps.results import Phase, Result, Sweep, SweepTask, hash_of, run_folder
from vit_jax.types import UserError

Kind = Literal["train", "fewshot"]
OLDER_NONE = {"dtype": "auto", "scan": "auto", "num_classes": 0}


class TaskConfigs(NamedTuple):
    """The two configs of a task, `FILE.py:ARGS`; `dev` is "" if there is nothing to choose."""

    dev: str
    final: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a sweep.

    Args:
      task, phase, candidate, seed: see `results.Result`.
      kind: a training run as its config says, or a few-shot probe of frozen features.
      config: `FILE.py:ARGS`.
      overrides: (`a.b`, text), including the candidate's and the seed's.
      after: name of the run that must be done first, because it writes features that this run reads; "" for none.
    """

    task: str
    phase: Phase
    candidate: dict[str, Any]
    seed: int
    kind: Kind
    config: str
    overrides: tuple[tuple[str, str], ...]
    after: str = ""

    @property
    def name(self) -> str:
        """The folder's name: `final-lr0.01-seed0`. Letters that a checkpoint folder cannot have are encoded as in URLs."""
        parts = [self.phase, *(f"{k.split('.')[-1]}{v}" for k, v in self.candidate.items()), f"seed{self.seed}"]
        return re.sub(r"[*?\[\]\\/\x00-\x1f\x7f]", lambda match: f"%{ord(match[0]):02X}", "-".join(parts))

    @property
    def key(self) -> str:
        """The run's name in the sweep, unique and readable: `cifar10/final-lr0.01-seed0`."""
        return f"{self.task}/{self.name}"

    def folder(self, sweep_folder: Path) -> Path:
        """The run's workdir."""
        return run_folder(sweep_folder, self.task, self.name)


@dataclasses.dataclass(frozen=True)
class Grid:
    """A sweep and the configs of its runs.

    Args:
      sweep: the sweep's description.
      configs: {task: its two configs}.
      overrides: (`a.b`, text) for every run.
      kind: kind of the final runs; development runs are always trained.
    """

    sweep: Sweep
    configs: dict[str, TaskConfigs]
    overrides: tuple[tuple[str, str], ...]
    kind: Kind

    def candidates(self) -> list[dict[str, Any]]:
        """Every combination of candidate values, in the grid's order."""
        keys = list(self.sweep.candidates)
        return [dict(zip(keys, values, strict=True)) for values in itertools.product(*self.sweep.candidates.values())]

    @property
    def chooses(self) -> bool:
        """Whether there is anything to choose on the development split."""
        return len(self.candidates()) > 1

    def dev_runs(self, task: str) -> list[Run]:
        """The development runs of a task: each candidate once, with the first seed; empty if there is nothing to choose."""
        if not self.chooses:
            return []
        return [self._run(task, "dev", candidate, self.sweep.seeds[0]) for candidate in self.candidates()]

    def final_runs(self, task: str, chosen: dict[str, Any]) -> list[Run]:
        """The final runs of a task: the chosen candidate with every seed."""
        runs = [self._run(task, "final", chosen, seed) for seed in self.sweep.seeds]
        if self.kind == "fewshot":  # the first run writes the features
            runs[1:] = [dataclasses.replace(run, after=runs[0].name) for run in runs[1:]]
        return runs

    def choose(self, task: str, results: Mapping[str, Result]) -> dict[str, Any] | None:
        """The candidate with the best development score, the earliest in the grid if scores are equal; None if runs are missing.
        A candidate whose training diverged (score nan) is worse than any other.

        Args:
          task: the task's name.
          results: {run.key: result} of the runs that are done.
        """
        if not self.chooses:
            return self.candidates()[0]
        runs = self.dev_runs(task)
        if any(run.key not in results for run in runs):
            return None
        scores = [results[run.key].score(self.sweep.metric) for run in runs]
        best = max(range(len(runs)), key=lambda i: scores[i] if math.isfinite(scores[i]) else -math.inf)
        return runs[best].candidate

    def known_runs(self, results: Mapping[str, Result]) -> list[Run]:
        """Every run that is determined by now: a task's final runs only once its candidate is chosen."""
        runs = []
        for task in self.sweep.tasks:
            if task.missing:
                continue
            runs += self.dev_runs(task.name)
            chosen = self.choose(task.name, results)
            if chosen is not None:
                runs += self.final_runs(task.name, chosen)
        return runs

    @property
    def num_runs(self) -> int:
        """Number of runs of the whole sweep, over the tasks with data."""
        dev = len(self.candidates()) if self.chooses else 0
        return sum(not task.missing for task in self.sweep.tasks) * (dev + len(self.sweep.seeds))

    def _run(self, task: str, phase: Phase, candidate: dict[str, Any], seed: int) -> Run:
        chosen = [(key, str(value)) for key, value in candidate.items()]
        pair = self.configs[task]
        return Run(
            task=task,
            phase=phase,
            candidate=candidate,
            seed=seed,
            kind=self.kind,
            config=pair.dev if phase == "dev" else pair.final,
            overrides=(*self.overrides, *chosen, ("seed", str(seed))),
        )


def load_grid(spec: str, overrides: list[tuple[str, str]]) -> Grid:
    """Reads the sweep that a config file describes.

    Args:
      spec: `FILE.py:ARGS` or `NAME:ARGS`; the file has `get_sweep`.
      overrides: (`a.b`, text) for every run.

    Raises:
      UserError: the file is missing or describes no sweep, or the grid is empty.
    """
    path, arg = configs.find_file(spec)
    namespace = configs.run_file(path)
    if "get_sweep" not in namespace:
        raise UserError(
            f"config file {path} describes one run and no sweep (it has no get_sweep); run it with `vit_jax train`, "
            f"or sweep over configs/vtab.py, configs/finetune.py or configs/fewshot.py"
        )
    settings = dict(namespace["get_sweep"](arg or None))
    described = settings.pop("tasks")
    kind = settings.pop("kind", "train")
    pairs = {task["name"]: TaskConfigs(task.pop("dev", ""), task.pop("final")) for task in described}
    extra = {key: value for key, value in overrides if not may_change(key)}
    if extra:
        settings["title"] += f" (with {', '.join(f'{key}={value}' for key, value in extra.items())})"
    sweep = Sweep(**settings, config=spec, tasks=tuple(SweepTask(**task) for task in described), overrides=extra)
    _check_grid(spec, sweep, {key for key, _ in overrides})
    return Grid(sweep, pairs, tuple(overrides), kind)


def _check_grid(spec: str, sweep: Sweep, overridden: set[str]) -> None:
    empty = [name for name in ("tasks", "seeds") if not getattr(sweep, name)]
    empty += [key for key, values in sweep.candidates.items() if not values]
    if empty:
        raise UserError(f"{spec}: the grid is empty, there are no {' and no '.join(empty)}; give at least one of each")
    for name, values in {"tasks": [t.name for t in sweep.tasks], "seeds": sweep.seeds, **sweep.candidates}.items():
        if len(set(values)) < len(values):
            raise UserError(f"{spec}: {name} names a value twice: {', '.join(map(str, values))}")
    if both := overridden & {*sweep.candidates, "seed"}:
        raise UserError(
            f"--config.{sorted(both)[0]} is what the sweep varies; give its values as an argument of the config file, "
            f"{spec.partition(':')[0]}:lr=0.003+0.01,seeds=3"
        )


def identity_of(run: Run) -> str:
    """A hash of a run's request: its config file's keys and its overrides, the same on every device; without the keys that do not
    change its numbers (`record.MAY_CHANGE`).

    A process reads each config once, so a file that changes during a sweep does not change the request.

    Raises:
      UserError: the config cannot be loaded.
    """
    overrides = sorted(pair for pair in run.overrides if not may_change(pair[0]))
    return hash_of([run.kind, _described(run.kind, run.config), overrides])


@functools.cache
def _described(kind: Kind, config: str) -> dict[str, Any]:
    if kind == "fewshot":
        return configs.to_dict(_load_probe(config))
    described = configs.to_dict(configs.load(config))
    model = described["model"]
    # Spell "the run settles it" as older versions did, so that their sweeps resume with the same hash.
    model |= {key: old for key, old in OLDER_NONE.items() if key in model and model[key] is None}
    return described


def _load_probe(spec: str) -> ml_collections.ConfigDict:
    path, arg = configs.find_file(spec)
    return configs.run_file(path)["get_probe"](arg or None)


def probe_config(run: Run) -> ml_collections.ConfigDict:
    """The config of a few-shot run: the result of its file's `get_probe(arg)`, with the run's overrides.

    Raises:
      UserError: an override names a missing key.
    """
    config = _load_probe(run.config)
    if errors := override(config, run.overrides):
        raise UserError("\n".join(errors))
    return config
