"""A run's wall-clock time, by what it was spent on, over all of its starts: how much of it trained (goodput)."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from vit_jax.files import read_json_value
from vit_jax.types import UserError

FILE = "time.json"
KINDS = ("start", "compile", "data", "step", "evaluation", "saving")
STARVED = 0.2  # share of waiting for data from which on a warning is worth its line
WARMED_UP = 20  # steps, which fill queues


class Clock:
    """Adds up wall-clock time by kind, and keeps it in the workdir from start to start.

    A start is one process's life. Time that a start spent after its last checkpoint is lost once another start resumes from
    that checkpoint: `totals` reports it as `lost`.

    Args:
      folder: the workdir; None keeps nothing, as on processes other than the first.
    """

    def __init__(self, folder: epath.Path | None = None):
        self._file = folder / FILE if folder else None
        self._earlier = _read(self._file) if self._file else []
        self._spent = dict.fromkeys(KINDS, 0.0)
        self._saved = dict(self._spent)
        self._recorded = dict(self._spent)
        self._steps = self._recorded_steps = 0
        self._advice: str | None = None

    @contextlib.contextmanager
    def spend(self, kind: str) -> Iterator[None]:
        """Counts the time inside the `with` as `kind`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(kind, time.perf_counter() - began)

    def add(self, kind: str, seconds: float) -> None:
        """Counts seconds as `kind`."""
        self._spent[kind] += seconds

    def step(self, waiting_s: float, stepping_s: float) -> None:
        """Counts a step: seconds of waiting for its batch, and of the step."""
        self.add("data", waiting_s)
        self.add("step", stepping_s)
        self._steps += 1

    def rates(self, batch_size: int, steps_left: int) -> dict[str, float]:
        """Throughput since the last call, and the time left, in the names of a record; writes the file, so that a kill loses
        the time since the last record alone.

        Args:
          batch_size: examples per step.
          steps_left: steps to the end of the run.
        """
        steps = self._steps - self._recorded_steps
        waiting, stepping = (self._spent[kind] - self._recorded[kind] for kind in ("data", "step"))
        rates = {
            "time/images_per_s": batch_size * steps / (waiting + stepping),
            "time/data_wait_share": waiting / (waiting + stepping),
            "time/eta_s": (waiting + stepping) / steps * steps_left,
        }
        if self._recorded_steps >= WARMED_UP and self._advice is None:
            self._advice = starvation(rates) or None
        self._recorded, self._recorded_steps = dict(self._spent), self._steps
        self.write()
        return rates

    def advice(self) -> str:
        """Advice for a device that waits for data, once; else ""."""
        advice, self._advice = self._advice or "", "" if self._advice else self._advice
        return advice

    def saved(self) -> None:
        """Notes that everything up to here is in a checkpoint, and writes the file."""
        self._saved = dict(self._spent)
        self.write()

    def write(self) -> None:
        """Writes `time.json`."""
        if self._file:
            partial = self._file.with_suffix(".partial")
            partial.write_text(json.dumps([*self._earlier, {"spent": self._spent, "saved": self._saved}]) + "\n")
            partial.replace(self._file)

    def totals(self) -> dict[str, float]:
        """{kind: seconds} over all starts, `lost` included."""
        totals = {**dict.fromkeys(KINDS, 0.0), "lost": 0.0}
        for start in self._earlier:
            for kind, seconds in start["saved"].items():
                totals[kind] += seconds
            totals["lost"] += math.fsum(start["spent"].values()) - math.fsum(start["saved"].values())
        for kind, seconds in self._spent.items():
            totals[kind] += seconds
        return totals

    def shares(self) -> dict[str, float]:
        """{kind: share of the whole}, in [0, 1]; those that come to nothing are left out."""
        totals = self.totals()
        whole = math.fsum(totals.values()) or 1.0
        return {kind: seconds / whole for kind, seconds in totals.items() if seconds > 0}

    def __str__(self) -> str:
        """The shares on one line, the largest first; those below half a percent are left out."""
        ordered = sorted(self.shares().items(), key=lambda item: -item[1])
        return ", ".join(f"{share:.0%} {kind}" for kind, share in ordered if share >= 0.005)


def read_shares(workdir: epath.Path | Path) -> dict[str, float]:
    """`Clock.shares` of a run that may be running still: time since its last checkpoint is not lost yet; empty if unknown."""
    *earlier, last = _read(epath.Path(workdir) / FILE) or [{}]
    clock = Clock()
    clock._earlier = earlier
    clock._spent |= last.get("spent", {})
    return clock.shares()


def starvation(rates: Mapping[str, float]) -> str:
    """Advice if the rates are of a device that waits for data, else ""."""
    share, images_per_s = rates["time/data_wait_share"], rates["time/images_per_s"]
    if share < STARVED or share >= 1:
        return ""
    have = cores()
    return (
        f"the device waits for data {share:.0%} of the time: it gets {images_per_s:,.0f} images/s and could take "
        f"{images_per_s / (1 - share):,.0f}. Give this process about {math.ceil(have / (1 - share))} cores in place of {have}, "
        "or pack the data (`vit_jax prepare`); `vit_jax bench --mode=data` measures the pipeline alone"
    )


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read(file: epath.Path) -> list[dict[str, Any]]:
    """The earlier starts; none if the file is missing or damaged, for a run does not depend on it."""
    try:
        starts = read_json_value(file)
        return [{part: {k: float(start[part][k]) for k in KINDS} for part in ("spent", "saved")} for start in starts]
    except (UserError, OSError, TypeError, KeyError, ValueError):
        return []
