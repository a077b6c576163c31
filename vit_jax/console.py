"""A run's metrics on the console: a live line on a terminal, plain lines in a log."""

from __future__ import annotations

import datetime
import math
import os
import re
import sys
from collections.abc import Mapping
from typing import TextIO

from vit_jax.types import Metric

CONSOLE = {  # the contents of a line about training, in order; the live line has room for the last four
    "train/epoch": "epoch {:6.2f}",
    "train/accuracy": "accuracy {:7.2%}",
    "train/loss": "loss {:.4f}",
    "train/lr": "lr {:.2e}",
    "time/images_per_s": "{:7.1f} images/s",
    "time/data_wait_share": "data wait {:4.0%}",
}


class ConsoleWriter:
    """Shows one live line on a terminal, with evaluations and notices above it; otherwise one plain line per event, to grep.

    Args:
      total_steps: steps of the whole run.
      start_step: the step that the run starts or resumes from.
      stream: where to write; the standard output by default.
    """

    def __init__(self, total_steps: int, start_step: int = 0, *, stream: TextIO | None = None):
        # Standard output is None if the caller closed it.
        self._stream: TextIO = stream or sys.stdout or open(os.devnull, "w")  # noqa: SIM115
        self._total, self._progress = total_steps, None
        if self._stream.isatty() and os.environ.get("TERM") != "dumb":
            from rich import console, progress

            screen = console.Console(file=self._stream)
            left, bar = progress.TextColumn("step {task.completed}/{task.total}"), progress.BarColumn(bar_width=None)
            right = progress.TextColumn("{task.fields[status]}", markup=False)
            columns = (left, bar, right) if screen.width >= 100 else (left, right)
            # Redrawn only on writes: a refresh thread would compete with the run.
            self._progress = progress.Progress(*columns, console=screen, auto_refresh=False, expand=True)
            self._task = self._progress.add_task("", total=total_steps, completed=start_step, status="starting")
            self._progress.start()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        parts = [text.format(scalars[key]) for key, text in CONSOLE.items() if key in scalars]
        eta = scalars.get("time/eta_s", math.nan)
        left = [f"ETA {datetime.timedelta(seconds=round(eta))}"] if math.isfinite(eta) else []
        if parts and self._progress:
            status = " ".join(" ".join([*left, *parts[-4:]]).split()).replace("data wait", "wait")  # fits 80 columns
            self._progress.update(self._task, completed=step, status=status, refresh=True)
        elif parts:
            self._line(step, "train", "  ".join([*parts, *left]))
        for name, (raw, average) in _evaluations(scalars).items():
            inner = f"(average: {'  '.join(average)})" if average else ""
            self._line(step, name, "  ".join([*raw, inner] if inner else raw))

    def notice(self, text: str) -> None:
        encoding = self._stream.encoding or "utf-8"  # it may lack characters of a file name in a notice
        text = text.encode(encoding, "backslashreplace").decode(encoding)
        if self._progress:
            self._progress.console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
        else:
            try:
                print(text, file=self._stream, flush=True)
            except OSError:  # the stream's reader is gone, or its disk is full; the run is worth more than its lines
                self._stream = open(os.devnull, "w")  # noqa: SIM115  (for the rest of the process)

    def _line(self, step: int, name: str, text: str) -> None:
        self.notice(f"step {step:{len(str(self._total))}d}/{self._total}  {name:16}  {text}")

    def flush(self) -> None:
        """Does nothing: this writer holds nothing back."""

    def close(self) -> None:
        if self._progress:
            self._progress.stop()
            self._progress = None


def _evaluations(scalars: Mapping[str, float]) -> dict[str, tuple[list[str], list[str]]]:
    """Groups `eval/NAME/METRIC` and `eval_average/NAME/METRIC` by NAME into (raw, average), each metric as text."""
    scores: dict[str, tuple[list[str], list[str]]] = {}
    for key, value in scalars.items():
        parsed = Metric.parse(key)
        if parsed is None:
            continue
        kind, name, metric = parsed
        # The averaged weights see the same examples, so count them once. Single seeds and intervals are in the record.
        if (
            (kind, metric) == ("eval_average", "num_examples")
            or "_seed" in metric
            or metric.endswith(("_low", "_high"))
        ):
            continue
        shown = scores.setdefault(name, ([], []))[kind == "eval_average"]
        if metric == "num_examples":
            shown.append(f"{value:.0f} examples")
        elif metric in ("accuracy", "commonest") or re.fullmatch(r"top\d+|\d+shot", metric):
            shown.append(f"{re.sub(r'(?<=top)|(?=shot)', '-', metric)} {value:7.2%}")
        else:
            shown.append(f"{metric} {value:.4f}" if metric == "loss" else f"{metric} {value:.4g}")
    return scores
