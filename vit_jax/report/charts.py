"""Charts of a page as inline SVG: text stays text, and colours follow the page, light or dark.

matplotlib draws with stand-in colours, which become CSS custom properties of the page's style sheet (`--ink`, `--line`,
`--series-0` and so on). The same numbers give the same bytes. matplotlib is imported on use; only its Figure objects are used.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vit_jax.metrics.curves import MARKERS
from vit_jax.report.collect import Entry, TaskRuns, describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUM_SERIES = 6  # colours of the style sheet; the seventh sweep uses the first again
STAND_INS = {"#010101": "var(--ink)", "#020202": "var(--soft)", "#030303": "var(--line)"} | {
    f"#0404{n:02x}": f"var(--series-{n})" for n in range(NUM_SERIES)
}
INK, SOFT, LINE = "#010101", "#020202", "#030303"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # labels come from the user: a dollar sign in one starts no formula
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
}
SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


class Chart(NamedTuple):
    """A chart and its description in words."""

    svg: str
    caption: str


def color_of(number: int) -> str:
    """A sweep's colour, from its place on the page."""
    return f"#0404{number % NUM_SERIES:02x}"


def draw(name: str, described: str, size: tuple[float, float], paint: Callable[[Axes], None]) -> str:
    """Draws an <svg> of one panel.

    Args:
      name: unique on the page; its ids begin with it.
      described: text for readers who cannot see the chart.
      size: (width, height) in inches, each 72 units of the SVG.
      paint: draws into the panel.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.05))
        FigureCanvasSVG(figure)
        paint(figure.subplots())
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True)
    svg = out.getvalue()[out.getvalue().index("<svg") :]
    # Remove the time and the program of the drawing: the time would make every page different.
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for stand_in, ours in STAND_INS.items():
        svg = svg.replace(stand_in, ours)
    svg = re.sub(r'( id="| xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"<svg [^>]*viewBox=\"([^\"]*)\"[^>]*>", "", svg, count=1)
    width, height = size[0] * 72, size[1] * 72
    opening = f'<svg viewBox="0 0 {width:g} {height:g}" role="img" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return f"{opening}<title>{escape(described)}</title>{svg}".strip()


def candidates_chart(name: str, tasks: Sequence[tuple[int, str, TaskRuns]]) -> Chart | None:
    """Score on the development split against the learning rate (or the key that varies), with the chosen candidate ringed.

    Args:
      name: unique on the page.
      tasks: (place of the sweep on the page, its label, its runs of this task).
    """
    lines = [(place, label, task, line) for place, label, task in tasks for line in _candidate_lines(task)]
    if not lines:
        return None
    axis = lines[0][3].axis

    def paint(ax: Axes) -> None:
        for number, (place, label, task, line) in enumerate(lines):
            x, y = np.array([p.x for p in line.points]), np.array([100 * p.mean for p in line.points])
            error = np.array([0.0 if math.isnan(p.std) else 100 * p.std for p in line.points])
            text = short(f"{label}, {line.rest}" if line.rest else label)
            style: dict[str, Any] = {"color": color_of(place), "marker": MARKERS[number % len(MARKERS)], "label": text}
            ax.errorbar(x, y, error if error.any() else None, capsize=2, **style)
            for point in line.points:
                if point.chosen and task.final:
                    ax.plot(point.x, 100 * point.mean, "o", color=color_of(place), markersize=11, fillstyle="none")
        values = [p.x for *_, line in lines for p in line.points]
        if min(values) > 0:
            ax.set_xscale("log")
            ax.set_xticks(sorted(set(values)), [f"{x:g}" for x in sorted(set(values))])
            ax.minorticks_off()
        ax.set(title="Score on the development split", xlabel=axis, ylabel="%")
        ax.margins(0.1, 0.15)
        legend(ax, len(lines))

    text = "; ".join(
        f"{label}: " + ", ".join(f"{p.x:g} {100 * p.mean:.2f}%" for p in line.points) for _, label, _, line in lines
    )
    return Chart(draw(name, text, (4.2, 2.9), paint), f"Development score against {axis}; ring: chosen.")


class _Point(NamedTuple):
    x: float
    mean: float
    std: float
    chosen: bool


class _CandidateLine(NamedTuple):
    axis: str
    rest: str  # the other keys of the candidates on this line
    points: list[_Point]


def _candidate_lines(task: TaskRuns) -> list[_CandidateLine]:
    """One line per combination of the other keys; the horizontal axis is the learning rate if it varies."""
    scored = [(c, s) for c, s in task.dev_scores() if math.isfinite(s.mean)]
    numeric = [
        key for key in (scored[0][0] if scored else {}) if all(isinstance(c.get(key), int | float) for c, _ in scored)
    ]
    if not numeric:
        return []
    axis = next((key for key in numeric if key.rpartition(".")[2] in ("lr", "learning_rate")), numeric[0])
    lines: dict[str, _CandidateLine] = {}
    for candidate, score in scored:
        others = {key: value for key, value in candidate.items() if key != axis}
        rest = describe(others) if others else ""
        point = _Point(float(candidate[axis]), score.mean, score.std, candidate == task.chosen)
        lines.setdefault(rest, _CandidateLine(axis, rest, [])).points.append(point)
    return list(lines.values())


def compute_chart(name: str, entries: Sequence[tuple[int, Entry]]) -> Chart | None:
    """Score of every finished task against its training FLOPs, and each sweep's mean over these tasks."""
    points: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for place, entry in entries:
        for task in entry.tasks:
            flops = [run.result.train_flops for run in task.final]
            if task.finished and min(flops) > 0:
                point = (sum(flops) / len(flops), 100 * task.spread.mean)
                points.setdefault((place, entry.label), []).append(point)
    if not points:
        return None

    def paint(ax: Axes) -> None:
        for number, ((place, label), found) in enumerate(points.items()):
            x, y = np.array(found).T
            marker, color = MARKERS[number % len(MARKERS)], color_of(place)
            ax.plot(x, y, linestyle="", marker=marker, color=color, alpha=0.45)
            said = f"{short(label)}: mean of {len(found)} task{'' if len(found) == 1 else 's'}"
            ax.plot(x.mean(), y.mean(), linestyle="", marker=marker, color=color, markersize=10, label=said)
        flops = [x for found in points.values() for x, _ in found]
        ax.set_xscale("log")
        if max(flops) / min(flops) < 10:  # a range under a decade may contain no tick
            ax.set_xlim(min(flops) / 4, max(flops) * 4)
        ax.xaxis.set_major_formatter(lambda x, _: _power(x))
        ax.xaxis.set_minor_formatter(lambda x, _: "")
        ax.set(xlabel="training FLOPs of a run", ylabel="%")
        legend(ax, len(points) + 1)

    caption = "Each finished task against the FLOPs of one training run; large: the sweep's mean over those tasks."
    return Chart(draw(name, caption, (5.2, 3.2), paint), caption)


def _power(x: float) -> str:
    exponent = math.floor(math.log10(x) + 1e-9)
    factor = x / 10**exponent
    power = "10" + str(exponent).translate(SUPERSCRIPTS)
    return power if abs(factor - 1) < 1e-6 else f"{factor:.2g}·{power}"


def short(label: str, most: int = 44) -> str:
    """Shortens a legend's line at its end, and moves a leading underscore, which would make matplotlib hide the label."""
    text = " ".join(label.split())
    text = text if len(text) <= most else text[: most - 1] + "…"
    return f" {text}" if text.startswith("_") else text


def legend(ax: Axes, num: int) -> None:
    """Puts the legend below the panel, where it covers no data; a single line gets none."""
    if num > 1:
        ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower left", ncols=1)
