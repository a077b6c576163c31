"""One task's part of the page: its candidates' scores, its curves, its classes and mistakes, its runs with their files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from vit_jax.report.charts import Chart, candidates_chart
from vit_jax.report.collect import Entry, Run, TaskRuns, describe, same
from vit_jax.report.lines import task_cell
from vit_jax.report.outcomes import Outcomes, outcomes
from vit_jax.report.table import Cell, percent
from vit_jax.report.training import training_charts

RUN_FILES = ("result.json", "config.json", "metrics.jsonl", "log.txt")
DECIMALS = 2


class Tried(NamedTuple):
    """A candidate's score on the development split."""

    candidate: str
    score: Cell
    chosen: bool


class RunLine(NamedTuple):
    """A run and its files."""

    name: str
    candidate: str
    score: str
    last: str
    num_examples: int
    seconds: float
    config_hash: str
    command: str
    links: tuple[tuple[str, str], ...]


class Picture(NamedTuple):
    """A mistake's image, in the form that the page shows."""

    href: str
    label: str
    predicted: str
    confidence: str
    name: str
    small: bool


class Side(NamedTuple):
    """One sweep's part of a task."""

    place: int
    label: str
    score: Cell
    brief: str
    status: str
    chosen: str
    tried: tuple[Tried, ...]
    note: str
    dataset: str
    splits: str
    num_classes: int
    outcomes: Outcomes | None
    pictures: tuple[Picture, ...]
    runs: tuple[RunLine, ...]


class TaskView(NamedTuple):
    """One task of a section, with the parts of every sweep that has it."""

    anchor: str
    title: str
    group: str
    sides: tuple[Side, ...]
    charts: tuple[Chart, ...]


def href(file: Path, to: Path) -> str:
    """A link from a page in `to` that works from disk."""
    return quote(Path(os.path.relpath(file.resolve(), to.resolve())).as_posix())


def task_views(section: str, entries: Sequence[tuple[int, Entry]], to: Path) -> list[TaskView]:
    """Every task of a section's sweeps.

    Args:
      section: unique on the page.
      entries: (place on the page, sweep).
      to: folder of the page.
    """
    names = list(dict.fromkeys(task.task.name for _, entry in entries for task in entry.tasks))
    views = []
    for number, name in enumerate(names):
        columns = [
            (place, entry.label, task) for place, entry in entries for task in entry.tasks if task.task.name == name
        ]
        first = columns[0][2].task
        anchor = f"{section}-{number}-" + (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "task")
        choice = candidates_chart(f"{anchor}-choice", columns)
        charts = [*([choice] if choice else []), *training_charts(anchor, columns)]
        sides = tuple(_side(place, label, task, to) for place, label, task in columns)
        views.append(TaskView(anchor, first.title, first.group.capitalize(), sides, tuple(charts)))
    return views


def _side(place: int, label: str, task: TaskRuns, to: Path) -> Side:
    chosen = task.chosen
    scores = task.dev_scores()
    tried = tuple(
        Tried(
            describe(candidate),
            percent([score.mean], DECIMALS)._replace(std=100 * score.std if score.num > 1 else None),
            bool(task.final) and chosen is not None and same(candidate) == same(chosen),
        )
        for candidate, score in scores
    )
    result = outcomes(task.final, task.metric)
    pictures = tuple(
        Picture(href(m.file, to), m.label, m.predicted, f"{100 * m.confidence:.1f}%", m.name, m.small)
        for m in (result.mistakes if result else ())
    )
    results = [run.result for run in (*task.final, *task.dev)]
    splits = dict.fromkeys(f"{r.phase}: {', '.join(f'{k} {v}' for k, v in r.splits.items())}" for r in results)
    return Side(
        place,
        label,
        task_cell(task, DECIMALS),
        "no data" if task.task.missing else _status(task),
        _status(task),
        describe(chosen) if chosen is not None else "",
        tried,
        _second_thoughts(task),
        task.task.dataset,
        "; ".join(splits),
        len(results[0].class_names) if results else 0,
        result,
        pictures,
        tuple(_run_line(run, task.metric, to) for run in (*task.final, *task.dev)),
    )


def _status(task: TaskRuns) -> str:
    if task.task.missing:
        return f"no data: {task.task.missing}"
    if task.finished:
        return ""
    if task.final or task.dev:
        what = f"{len(task.by_seed())} of {len(task.seeds)} seeds"
        if task.diverged:
            what += f"; no number from seed {', '.join(map(str, task.diverged))}"
        return f"unfinished: {what}"
    return "no run is done yet"


def _second_thoughts(task: TaskRuns) -> str:
    """A note if the development split now favours another candidate than that of the final runs."""
    scores = {
        same(candidate): (score.mean, candidate) for candidate, score in task.dev_scores() if score.mean == score.mean
    }
    if not task.final or not scores:
        return ""
    best = max(scores.values(), key=lambda pair: pair[0])
    taken = scores.get(same(task.final[0].result.candidate))
    if taken is None:
        return "The final runs' candidate has no score on the development split."
    if taken[0] < best[0]:
        return f"The final runs have {describe(taken[1])}; on the development split {describe(best[1])} is better."
    return ""


def _run_line(run: Run, metric: str, to: Path) -> RunLine:
    result = run.result
    files = [run.folder / name for name in RUN_FILES]
    return RunLine(
        f"{result.phase}, seed {result.seed}",
        describe(result.candidate),
        percent([result.score(metric)], DECIMALS).text,
        _other_weights(result.scores, metric) if result.average_scores else "",
        result.num_examples,
        result.seconds,
        result.config_hash,
        result.command,
        tuple((file.name, href(file, to)) for file in files if file.is_file()),
    )


def _other_weights(scores: dict[str, Any], metric: str) -> str:
    """The last weights' score, if the run's score is that of the averaged weights."""
    return percent([scores[metric]], DECIMALS).text if isinstance(scores.get(metric), int | float) else ""
