"""Times a step over batch sizes, up to the largest that fits (arXiv 2010.11929, appendix D.5: images/s against batch size).

Each size runs in a process of its own: memory that one size used does not count for the next, and a size that does not fit ends
its process alone.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vit_jax.types import UserError

# The words of XLA, of its allocators and of the kernel (SIGKILL) for memory that is not enough.
FULL = re.compile(r"RESOURCE_EXHAUSTED|[Oo]ut of memory|MemoryError|bad_alloc")
KILLED = -9
Figures = Mapping[str, Any]
Measure = Callable[[int], "Figures | None"]  # batch size -> the figures of `vit_jax bench`; None if it does not fit


def parse_sizes(text: str) -> tuple[list[int], bool]:
    """Parses `8,16,32` or `8+`; returns the sizes, and whether the last is doubled until memory is full.

    Raises:
      UserError: the text is neither.
    """
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*\+?", text):
        raise UserError(
            f"--batches={text}: expected batch sizes such as 8,16,32, or 8+ to double 8 until memory is full"
        )
    return [int(size) for size in text.removesuffix("+").split(",")], text.endswith("+")


def sweep(sizes: Sequence[int], double: bool, measure: Measure, room: int | None = None) -> Iterator[Figures]:
    """Yields the figures of each batch size that fits.

    Args:
      sizes: batch sizes; those after one that does not fit are not tried.
      double: go on doubling the last.
      measure: measures one size.
      room: bytes of the host's memory, which the kernel does not refuse but kills for: on a CPU, a size whose predecessor took
        more than half of them is not tried. None if unknown.
    """
    queue = list(sizes)
    while queue:
        size = queue.pop(0)
        figures = measure(size)
        if figures is None:
            return
        yield figures
        full = room is not None and figures["device"] == "cpu" and figures["peak_memory_bytes"] > room / 2
        if not queue and double and not full:
            queue = [2 * size]


def measure_alone(arguments: Sequence[str]) -> Measure:
    """Measures a size by `vit_jax bench ARGUMENTS --batch=SIZE --json` in a process of its own."""

    def measure(size: int) -> Figures | None:
        command = [sys.executable, "-m", "vit_jax", "bench", *arguments, f"--batch={size}", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == KILLED or (done.returncode and FULL.search(done.stderr)):
            return None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"batch {size}: {last.removeprefix('error: ')}")
        figures: Figures = json.loads(done.stdout.splitlines()[-1])
        return figures

    return measure


def free_memory() -> int | None:
    """Bytes that a process may still take on a host (Linux); None elsewhere."""
    try:
        text = Path("/proc/meminfo").read_text()
        return int(re.search(r"MemAvailable:\s+(\d+) kB", text)[1]) * 1024  # type: ignore[index]
    except (OSError, TypeError):
        return None


def to_markdown(rows: Sequence[Figures]) -> str:
    """A table with a row per batch size; the share of the peak is empty where it is unknown."""
    lines = [
        "| batch | images/s | step, ms | share of peak | memory, GB | first step, s |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        share = row["peak_share"]
        cells = [
            str(row["batch_size"]),
            f"{row['images_per_s']:,.1f}",
            f"{1000 * row['step_s_median']:,.1f}",
            "" if share is None else f"{share:.1%}",
            f"{row['peak_memory_bytes'] / 1e9:.2f}",
            f"{row['process_start_to_first_step_s']:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(rows: Sequence[Figures], title: str, to: str | os.PathLike[str]) -> None:
    """Draws images/s and memory against the batch size, and the share of the peak where it is known, as a PNG."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    from vit_jax.metrics.curves import COLORS, STYLE

    sizes = [row["batch_size"] for row in rows]
    panels = [("images/s", [row["images_per_s"] for row in rows])]
    if all(row["peak_share"] is not None for row in rows):
        panels.append(("share of the peak, %", [100 * row["peak_share"] for row in rows]))
    panels.append(("peak memory, GB", [row["peak_memory_bytes"] / 1e9 for row in rows]))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * len(panels), 3.4), dpi=130, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, fontweight="bold")
        for ax, color, (label, values) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], COLORS, panels, strict=False
        ):
            ax.plot(sizes, values, color=color, marker="o")
            ax.set(xlabel="batch size", ylabel=label, xscale="log", ylim=(0, 1.08 * max(values)))
            ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
            ax.xaxis.set_minor_locator(NullLocator())
        Path(to).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(os.fspath(to), format="png")
