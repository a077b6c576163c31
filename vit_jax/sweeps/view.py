"""The console's view of a sweep: live on a terminal, a plain line per finished run in a log."""

from __future__ import annotations

import datetime
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from vit_jax.sweeps.drive import Progress
from vit_jax.sweeps.results import Result, Sweep

RECENT = 6  # failed runs shown in the live view


class View:
    """Shows every `Progress` that it is called with; as a context manager, it leaves the terminal as it was.

    Args:
      sweep: the sweep being run.
      parallel: runs at a time.
      clock: returns seconds, to estimate the time left.
    """

    def __init__(
        self,
        sweep: Sweep,
        parallel: int,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._sweep, self._parallel, self._clock = sweep, parallel, clock
        self._stream = stream or sys.stdout
        self._began, self._told = clock(), set[str]()
        self._live: Any = None
        self._started = False

    def __enter__(self) -> View:
        if self._stream.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(file=self._stream), auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, progress: Progress) -> None:
        """Shows the sweep's progress."""
        if not self._started:  # results of earlier starts are counted, and not shown again
            self._told |= set(progress.results)
            self._started = True
        if self._live:
            self._live.update(self._table(progress), refresh=True)
            return
        for key, result in progress.results.items():
            if key not in self._told:
                self._told.add(key)
                print(f"{self.counts(progress)}  {key}  {self._score(result)}", file=self._stream, flush=True)
        for key, reason in progress.failed.items():
            if key not in self._told:
                self._told.add(key)
                print(f"{self.counts(progress)}  {key}  failed: {reason}", file=self._stream, flush=True)

    def counts(self, progress: Progress) -> str:
        """`12 of 57 done, 2 running, 0 failed, 0:03:10 left`."""
        done = f"{len(progress.results)} of {progress.total} done, {len(progress.running)} running"
        left = self.seconds_left(progress)
        when = "" if left is None else f", {datetime.timedelta(seconds=round(left))} left"
        return f"{done}, {len(progress.failed)} failed{when}"

    def seconds_left(self, progress: Progress) -> float | None:
        """Seconds left, estimated from the runs that finished under this driver; None before the first."""
        done = len(progress.results) - progress.began
        remaining = progress.total - len(progress.results) - len(progress.failed)
        if done <= 0:
            return None if remaining else 0.0
        return (self._clock() - self._began) / done * remaining

    def best(self, progress: Progress) -> dict[str, str]:
        """{task title: the best development score so far, or the mean test score once final runs are done}."""
        best = {}
        for task in self._sweep.tasks:
            of_task = [r for r in progress.results.values() if r.task == task.name]
            final = [r.score(self._sweep.metric) for r in of_task if r.phase == "final"]
            dev = [r for r in of_task if r.phase == "dev"]
            if final:
                best[task.title] = (
                    f"{statistics.fmean(final):.2%} on test, {len(final)} of {len(self._sweep.seeds)} seeds"
                )
            elif dev:
                top = max(dev, key=lambda r: _or_least(r.score(self._sweep.metric)))
                chosen = ", ".join(f"{k.split('.')[-1]} {v}" for k, v in top.candidate.items())
                best[task.title] = f"{top.score(self._sweep.metric):.2%} on dev, {chosen}"
        return best

    def _score(self, result: Result) -> str:
        score = result.score(self._sweep.metric)
        text = f"{score:.2%}" if math.isfinite(score) else "no number (see log.txt)"
        return f"{self._sweep.metric} {text} in {result.seconds:.0f} s"

    def _table(self, progress: Progress) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=Text(self._sweep.title), caption=Text(self.counts(progress)), show_header=False, min_width=72
        )
        table.add_column(overflow="fold")
        table.add_column(overflow="fold")
        for title, text in self.best(progress).items():
            table.add_row(Text(title), Text(text))
        for key in progress.running[: self._parallel]:
            table.add_row(Text(key, style="dim"), Text("running", style="dim"))
        for key, reason in list(progress.failed.items())[-RECENT:]:
            table.add_row(Text(key, style="red"), Text(f"failed: {reason}"))
        return table


def _or_least(score: float) -> float:
    return score if math.isfinite(score) else -math.inf
