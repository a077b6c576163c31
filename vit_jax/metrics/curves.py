"""Draws the curves of a run's metrics.jsonl: training loss, top-1 of every evaluator, learning rate, as one PNG."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_jax.metrics.jsonl import read_jsonl
from vit_jax.types import Metric, UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, distinguishable with any colour vision, without its yellow, which is too pale on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.5,
}
FEW_POINTS = 24  # up to this many, each point is marked and the training loss is not smoothed


def plot_curves(runs: Mapping[str, str | os.PathLike[str]], to: str | os.PathLike[str]) -> None:
    """Draws one column of panels per run; a panel for which no run has data is left out.

    Args:
      runs: title of a run -> its metrics.jsonl.
      to: the PNG to write; its folder is created if missing.

    Raises:
      UserError: no runs are given, or a metrics.jsonl is missing.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator

    missing = [f"{name} at {path}" for name, path in runs.items() if not Path(path).is_file()]
    if missing or not runs:
        found = f"no file for {', '.join(missing)}" if missing else "no run"
        raise UserError(f"expected the metrics.jsonl of each run, found {found}; pass WORKDIR/metrics.jsonl")
    records = {name: read_jsonl(path) for name, path in runs.items()}
    panels = [(_draw_loss, 3.0)]  # (how to draw it, height in inches)
    if any(evaluators(run) for run in records.values()):
        panels.append((_draw_top1, 3.4))
    if any(len(series(run, "train/lr")[0]) for run in records.values()):
        panels.append((_draw_learning_rate, 1.8))
    heights = [height for _, height in panels]
    with matplotlib.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
        figure = Figure(figsize=(6.2 * len(runs), sum(heights) + 0.5), dpi=130, layout=layout)
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(panels), len(runs), squeeze=False, height_ratios=heights)
        for column, (name, run) in enumerate(records.items()):
            last = max((record["step"] for record in run), default=1)
            for row, (draw, _) in enumerate(panels):
                ax = axes[row, column]
                draw(ax, run)
                ax.set(xlabel="optimizer step", xlim=(-0.02 * max(last, 1), 1.02 * max(last, 1)))
                ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
                ax.xaxis.set_major_formatter("{x:,.0f}")
                if not ax.lines:
                    ax.text(0.5, 0.5, "nothing was recorded", ha="center", transform=ax.transAxes, color="#777777")
                    ax.set(yticks=[])
            head = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center"}
            axes[0, column].annotate(name, (0.5, 1), (0, 24), fontsize=13, fontweight="bold", **head)
        Path(to).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(os.fspath(to), format="png")


def _draw_loss(ax: Axes, run: Sequence[Mapping[str, Any]]) -> None:
    """Draws raw values, faint, under their running mean, on a logarithmic axis if the loss falls 20-fold."""
    steps, loss = series(run, "train/loss")
    ax.set(title="Training loss", ylabel="loss (nats)")
    if not len(steps):
        return
    if len(steps) <= FEW_POINTS:
        ax.plot(steps, loss, color=COLORS[0], marker="o", markersize=4, label="each record")
    else:
        window = max(5, len(steps) // 40) | 1  # odd, so that the mean is centred on a record
        span = round(float(np.median(np.diff(steps))) * window)
        ax.plot(steps, loss, color=COLORS[0], alpha=0.3, linewidth=1, label="each record")
        label = f"mean over {window} records ({span:,} steps)"
        ax.plot(steps, running_mean(loss, window), color=COLORS[0], linewidth=1.8, label=label)
    if loss.min() > 0 and loss.max() / loss.min() > 20:
        ax.set(yscale="log", ylabel="loss (nats, log scale)")
        ax.yaxis.set_major_formatter("{x:g}")
    _legend_below(ax, columns=2)


def _draw_top1(ax: Axes, run: Sequence[Mapping[str, Any]]) -> None:
    """Draws one colour per evaluator: solid for raw weights, dashed for averaged ones, a ring around the best."""
    ax.set(title="Top-1 accuracy", ylabel="top-1 accuracy (%)")
    averaged = False
    for index, name in enumerate(evaluators(run)):
        color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
        bests = []
        for prefix, line, what, fill in (("eval", "-", "best", "full"), ("eval_average", "--", "averaged", "none")):
            steps, top1 = series(run, str(Metric(prefix, name, "top1")))
            if not len(steps):
                continue
            averaged |= prefix == "eval_average"
            top1 = 100 * top1
            best = int(np.argmax(top1))
            bests.append(f"{what} {top1[best]:.2f}% at step {steps[best]:,}")
            every = len(steps) // FEW_POINTS + 1
            ax.plot(steps, top1, line, color=color, marker=marker, markersize=4, fillstyle=fill, markevery=every)
            ax.plot(steps[best], top1[best], "o", color=color, markersize=10, fillstyle="none", clip_on=False)
        ax.plot([], [], color=color, marker=marker, markersize=4, label=f"{name}: {', '.join(bests)}")
    if ax.lines:
        lines = "solid: raw weights, dashed: averaged, ring: best" if averaged else "ring: best"
        low, high = ax.get_ylim()
        ax.set(title=f"Top-1 accuracy ({lines})", ylim=(min(low, high - 2), high))
        _legend_below(ax, columns=1)


def _draw_learning_rate(ax: Axes, run: Sequence[Mapping[str, Any]]) -> None:
    steps, rate = series(run, "train/lr")
    ax.set(title="Learning rate", ylabel="learning rate")
    if len(steps):
        ax.plot(steps, rate, color=COLORS[0], marker="o" if len(steps) <= FEW_POINTS else "", markersize=4)
        ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
        ax.set_ylim(bottom=0)


def _legend_below(ax: Axes, columns: int) -> None:
    """Puts the legend below the x axis label, where it covers no data; the layout makes room for it."""
    from matplotlib.transforms import ScaledTranslation

    below = ax.transAxes + ScaledTranslation(0, -34 / 72, ax.figure.dpi_scale_trans)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, ncols=columns, borderaxespad=0)


def series(run: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns (steps, values) of the records that hold a finite value for the key."""
    points = [(r["step"], r[key]) for r in run if key in r and math.isfinite(r[key])]
    return np.array([step for step, _ in points], int), np.array([value for _, value in points], float)


def evaluators(run: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the evaluators that measured top-1, in order of appearance."""
    metrics = (Metric.parse(key) for record in run for key in record)
    return list(dict.fromkeys(metric.evaluator for metric in metrics if metric and metric.name == "top1"))


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Centred mean over an odd window, which is cut off at both ends."""
    kernel = np.ones(window)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")
