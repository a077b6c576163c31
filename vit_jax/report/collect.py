"""Reads and checks a sweep's folder for its page: the existing runs, the missing ones, and each task's result.

Scores stay fractions in [0, 1] here. A task counts in means only when every seed of the sweep has a finite score for it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vit_jax.sweeps.results import (
    RESULT_FILE,
    SWEEP_FILE,
    Result,
    Spread,
    Sweep,
    SweepTask,
    read_result,
    read_sweep,
    spread,
)
from vit_jax.types import UserError, nearest

Candidate = Mapping[str, Any]


class Run(NamedTuple):
    """A finished run."""

    folder: Path
    result: Result


@dataclasses.dataclass(frozen=True)
class TaskRuns:
    """The finished runs of one task of a sweep.

    Args:
      task: from `sweep.json`.
      metric: the metric that is compared.
      seeds: the requested seeds.
      dev: runs scored on the development split, by folder.
      final: runs scored on the test split, by seed; one per seed.
    """

    task: SweepTask
    metric: str
    seeds: tuple[int, ...]
    dev: tuple[Run, ...]
    final: tuple[Run, ...]

    def by_seed(self, metric: str = "") -> dict[int, float]:
        """{seed: score} of the final runs whose score is not nan."""
        scores = {run.result.seed: run.result.average_scores or run.result.scores for run in self.final}
        by_seed = {seed: values.get(metric or self.metric, math.nan) for seed, values in scores.items()}
        return {seed: score for seed, score in by_seed.items() if math.isfinite(score)}

    @property
    def spread(self) -> Spread:
        """Mean and deviation over the finished seeds."""
        return spread(self.by_seed().values())

    @property
    def finished(self) -> bool:
        """Whether every seed has a score, so that the task counts in means."""
        return not self.task.missing and set(self.by_seed()) == set(self.seeds)

    @property
    def diverged(self) -> tuple[int, ...]:
        """Seeds whose score is nan."""
        return tuple(run.result.seed for run in self.final if run.result.seed not in self.by_seed())

    @property
    def chosen(self) -> Candidate | None:
        """The candidate of the final runs; before there are any, the best one so far on the development split."""
        if self.final:
            return self.final[0].result.candidate
        scored = [(score.mean, candidate) for candidate, score in self.dev_scores() if math.isfinite(score.mean)]
        return max(scored, key=lambda pair: pair[0])[1] if scored else None

    def dev_scores(self) -> list[tuple[Candidate, Spread]]:
        """(candidate, score over the seeds that tried it), in the order of the candidates' values."""
        scores: dict[str, tuple[Candidate, list[float]]] = {}
        for run in self.dev:
            result = run.result
            scores.setdefault(same(result.candidate), (result.candidate, []))[1].append(result.score(self.metric))
        order = sorted(scores.values(), key=lambda pair: [_sortable(value) for _, value in sorted(pair[0].items())])
        return [(candidate, spread(values)) for candidate, values in order]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One sweep on the page.

    Args:
      folder: the sweep's folder.
      label: its row's name, distinct from the other sweeps'.
      sweep: the sweep's description.
      tasks: in the sweep's order.
      damaged: messages about result files that cannot be read; their runs are left out.
    """

    folder: Path
    label: str
    sweep: Sweep
    tasks: tuple[TaskRuns, ...]
    damaged: tuple[str, ...] = ()

    @property
    def runs(self) -> list[Run]:
        """Every finished run, task by task, development runs before final runs."""
        return [run for task in self.tasks for run in (*task.dev, *task.final)]

    @property
    def num_candidates(self) -> int:
        """Number of combinations to choose from."""
        return math.prod(len(values) for values in self.sweep.candidates.values())

    @property
    def expected(self) -> int:
        """Number of runs in the complete sweep; a task without data has none."""
        choices = self.num_candidates if self.num_candidates > 1 else 0
        return sum(choices + len(self.sweep.seeds) for task in self.tasks if not task.task.missing)

    @property
    def done(self) -> int:
        """Number of finished runs; a candidate tried with several seeds counts once."""
        return sum(
            len({same(run.result.candidate) for run in task.dev} if self.num_candidates > 1 else ()) + len(task.final)
            for task in self.tasks
            if not task.task.missing
        )


def same(candidate: Candidate) -> str:
    """A text that is equal for candidates which are equal after being written to JSON and read back."""
    return json.dumps(candidate, sort_keys=True)


def collect(folders: Sequence[Path]) -> list[Entry]:
    """Reads sweeps in the given order.

    Raises:
      UserError: a folder holds no sweep, a sweep is given twice, or results belong to another sweep; the message lists all.
    """
    twice = [str(folder) for folder, times in Counter(f.resolve() for f in folders).items() if times > 1]
    if twice:
        raise UserError(f"{', '.join(twice)} is given more than once; give each sweep's folder once")
    sweeps = [(folder, read_sweep(folder)) for folder in folders]
    for folder, sweep in sweeps:
        for what in ("name", "title"):
            again = [v for v, times in Counter(getattr(task, what) for task in sweep.tasks).items() if times > 1]
            if again:
                raise UserError(
                    f"{folder / SWEEP_FILE} has several tasks of the {what} {', '.join(again)}; tell them apart"
                )
    mistakes: list[str] = []
    read = [(folder, sweep, _read_tasks(folder, sweep, mistakes)) for folder, sweep in sweeps]
    if mistakes:
        advice = "remove or repair the files, or start the sweep again, which does what is missing"
        raise UserError(f"{len(mistakes)} result files cannot be used; {advice}:\n  " + "\n  ".join(mistakes))
    times = Counter(sweep.label for _, sweep in sweeps)
    labels = [s.label if times[s.label] == 1 else f"{s.label} ({f.resolve().name})" for f, s in sweeps]
    labels = [label if labels.count(label) == 1 else f"{label} #{n}" for n, label in enumerate(labels, start=1)]
    return [
        Entry(folder, label, sweep, tasks, damaged)
        for label, (folder, sweep, (tasks, damaged)) in zip(labels, read, strict=True)
    ]


def _read_tasks(folder: Path, sweep: Sweep, mistakes: list[str]) -> tuple[tuple[TaskRuns, ...], tuple[str, ...]]:
    """The runs of every task, and messages about unreadable files; contradictions are added to `mistakes`."""
    dev: dict[str, list[Run]] = {task.name: [] for task in sweep.tasks}
    final: dict[str, list[Run]] = {task.name: [] for task in sweep.tasks}
    seen: dict[tuple[str, str, str, int], Path] = {}
    damaged: list[str] = []
    for file in sorted((folder / "runs").glob(f"*/*/{RESULT_FILE}")):
        try:
            result = read_result(file.parent)
        except UserError as error:
            damaged.append(str(error))
            continue
        if result is None:
            continue
        wrong = _what_is_wrong(result, sweep, file)
        # Final scores count once per seed, whatever the candidate; a candidate may be tried with several seeds.
        key = (result.task, result.phase, same(result.candidate) if result.phase == "dev" else "", result.seed)
        if not wrong and key in seen:
            wrong = f"it repeats the run of {seen[key]}: task, phase and seed are the same"
        if wrong:
            mistakes.append(f"{file}: {wrong}")
            continue
        seen[key] = file.parent
        (dev if result.phase == "dev" else final)[result.task].append(Run(file.parent, result))
    for name, runs in final.items():
        runs.sort(key=lambda run: run.result.seed)
        if len({same(run.result.candidate) for run in runs}) > 1:
            choices = ", ".join(f"seed {run.result.seed}: {describe(run.result.candidate)}" for run in runs)
            mistakes.append(f"{folder / 'runs' / name}: the final runs have different candidates ({choices})")
    task_runs = [
        TaskRuns(task, sweep.metric, sweep.seeds, tuple(dev[task.name]), tuple(final[task.name]))
        for task in sweep.tasks
    ]
    # Results that were finished before their data disappeared are kept.
    tasks = tuple(
        dataclasses.replace(runs, task=dataclasses.replace(runs.task, missing=""))
        if {run.result.seed for run in runs.final} == set(sweep.seeds)
        else runs
        for runs in task_runs
    )
    return tasks, tuple(damaged)


def _what_is_wrong(result: Result, sweep: Sweep, file: Path) -> str:
    """Why a result does not belong to this sweep; "" if it does."""
    names = [task.name for task in sweep.tasks]
    if result.task not in names:
        return f"task {result.task!r} is not in the sweep; {nearest(str(result.task), names)}"
    if result.task != file.parent.parent.name:
        return f"it is of task {result.task!r} and lies in the folder of {file.parent.parent.name!r}"
    for key, value in result.candidate.items():
        tried = sweep.candidates.get(key, ())
        if value not in tried:
            return f"candidate {key}={value!r} is not in the sweep, which tries {list(tried)}"
    if result.phase == "final" and result.seed not in sweep.seeds:
        return f"seed {result.seed} is not in the sweep, which runs {list(sweep.seeds)}"
    scores = result.average_scores or result.scores
    if not isinstance(scores.get(sweep.metric), int | float):
        return f"it has no number for the sweep's metric {sweep.metric!r}; it has {', '.join(scores) or 'none'}"
    return ""


def describe(candidate: Candidate) -> str:
    """`optim.lr 0.01, train.steps 500`; "as configured" for the empty one."""
    return ", ".join(f"{key} {value}" for key, value in sorted(candidate.items())) or "as configured"


def _sortable(value: Any) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))
