"""Charts of training: the loss and top-1 of runs, from their metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_jax.metrics.curves import MARKERS, evaluators, running_mean, series
from vit_jax.metrics.jsonl import read_jsonl
from vit_jax.report.charts import Chart, color_of, draw, legend, short
from vit_jax.report.collect import TaskRuns
from vit_jax.types import Metric, UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW_POINTS, MANY_POINTS = 24, 240  # up to few, each point is marked; beyond many, points are thinned out
Records = Sequence[tuple[int, str, Sequence[Mapping[str, Any]]]]


def training_charts(name: str, tasks: Sequence[tuple[int, str, TaskRuns]]) -> list[Chart]:
    """Training loss, and top-1 of evaluations during training, of each sweep's first final run (else its first dev run)."""
    records = []
    for place, label, task in tasks:
        runs = task.final or task.dev
        run = read_records(runs[0].folder) if runs else []
        if run:
            what = f"seed {runs[0].result.seed}" if task.final else "development"
            records.append((place, f"{label}, {what}", run))
    return record_charts(name, records, "one run per sweep")


def record_charts(name: str, records: Records, which: str) -> list[Chart]:
    """The charts for which there are records.

    Args:
      name: unique on the page.
      records: (place on the page, label, records of metrics.jsonl) of each run.
      which: the runs, in the words of a caption.
    """
    charts = []
    if any(len(series(run, "train/loss")[0]) for *_, run in records):
        caption = f"Training loss of {which}."
        svg = draw(f"{name}-loss", caption, (4.2, 2.9), lambda ax: paint_loss(ax, records))
        charts.append(Chart(svg, caption))
    if any(evaluators(run) for *_, run in records):
        caption = "Top-1 while training; dashed: averaged weights."
        svg = draw(f"{name}-top1", caption, (4.2, 2.9), lambda ax: paint_top1(ax, records))
        charts.append(Chart(svg, caption))
    return charts


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records of a run; none if they cannot be read."""
    try:
        return read_jsonl(folder / "metrics.jsonl")
    except (OSError, UserError):
        return []  # the run's links on the page show which files exist


def paint_loss(ax: Axes, records: Records) -> None:
    lowest, highest = math.inf, -math.inf
    for place, label, run in records:
        steps, loss = series(run, "train/loss")
        if not len(steps):
            continue
        if len(steps) > FEW_POINTS:
            loss = running_mean(loss, max(5, len(steps) // 40) | 1)
        every = len(steps) // MANY_POINTS + 1
        marker = "o" if len(steps) == 1 else ""  # a single record draws no line
        ax.plot(steps[::every], loss[::every], color=color_of(place), marker=marker, label=short(label))
        lowest, highest = min(lowest, loss.min()), max(highest, loss.max())
    if lowest > 0 and highest / lowest > 20:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
    ax.set(title="Training loss", ylabel="nats")
    _count_steps(ax)
    legend(ax, len(records))


def paint_top1(ax: Axes, records: Records) -> None:
    num = 0
    for place, label, run in records:
        for evaluator in evaluators(run):
            for prefix, line in (("eval", "-"), ("eval_average", "--")):
                steps, top1 = series(run, str(Metric(prefix, evaluator, "top1")))
                if len(steps):
                    named = short(f"{label}, {evaluator}") if prefix == "eval" else None
                    marker = MARKERS[num % len(MARKERS)] if len(steps) <= FEW_POINTS else ""
                    ax.plot(steps, 100 * top1, line, color=color_of(place), marker=marker, label=named)
            num += 1
    ax.set(title="Top-1 while training", ylabel="%")
    _count_steps(ax)
    legend(ax, num)


def _count_steps(ax: Axes) -> None:
    """Puts ticks at whole steps only: in a short run, others would round to the same number."""
    from matplotlib.ticker import MaxNLocator

    ax.set(xlabel="optimizer step")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter("{x:,.0f}")
