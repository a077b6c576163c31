"""The origin of a sweep's numbers: code, versions, devices, preprocessing; and where these differ within one table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from vit_jax.report.collect import Entry, Run

NOT_SAID = "not said"


class Fact(NamedTuple):
    """One line: a property and its value for each sweep; different values within a sweep are joined."""

    name: str
    values: tuple[str, ...]
    differs: bool


def facts(entries: Sequence[Entry]) -> list[Fact]:
    """Lines of the table of origins; lines that matter for a comparison say where they differ."""
    rows = [
        Fact("protocol", tuple(entry.sweep.title for entry in entries), False),
        Fact("made by", tuple(entry.sweep.config for entry in entries), False),
        Fact("tried", tuple(_tried(entry) for entry in entries), False),
        Fact("seeds", tuple(", ".join(map(str, entry.sweep.seeds)) for entry in entries), False),
        Fact("runs done", tuple(f"{entry.done} of {entry.expected}" for entry in entries), False),
    ]
    for name, read in COMPARED.items():
        everything = {read(run) for entry in entries for run in entry.runs}
        values = tuple(_joined([read(run) for run in entry.runs]) for entry in entries)
        rows.append(Fact(name, values, len(everything) > 1))
    for name, describe in DESCRIBED.items():
        rows.append(Fact(name, tuple(describe(entry.runs) for entry in entries), False))
    return rows


def warnings(entries: Sequence[Entry]) -> list[str]:
    """Reasons why the numbers of one table are hard to compare: several versions, changed files, different images."""
    runs = [(entry, run) for entry in entries for run in entry.runs]
    lines = [f"Left out: {damaged}" for entry in entries for damaged in entry.damaged]
    for name, read in COMPARED.items():
        where: dict[str, dict[str, None]] = {}
        for entry, run in runs:
            task = f"{entry.label}, {run.result.task}" if len(entries) > 1 else run.result.task
            where.setdefault(read(run), {})[task] = None
        if len(where) > 1:
            values = "; ".join(f"{value} ({_few(list(tasks))})" for value, tasks in where.items())
            lines.append(f"Runs of one table differ in {name}: {values}.")
    modified = sum(bool(_git(run).get("modified")) for _, run in runs)
    if modified:
        lines.append(f"{modified} of {len(runs)} runs were made from files that differ from their commit.")
    unknown = sum(not _git(run).get("commit") for _, run in runs)
    if unknown:
        lines.append(f"{unknown} of {len(runs)} runs do not say which commit made them.")
    return lines


def _few(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _joined(values: Sequence[str]) -> str:
    times = Counter(values)
    if len(times) < 2:
        return "".join(times) or "–"  # noqa: RUF001
    return "; ".join(f"{value} ({num} runs)" for value, num in times.items())


def _tried(entry: Entry) -> str:
    return "; ".join(f"{key}: {', '.join(map(str, values))}" for key, values in entry.sweep.candidates.items()) or "–"  # noqa: RUF001


def _git(run: Run) -> dict[str, Any]:
    git = run.result.surroundings.get("git")
    return git if isinstance(git, dict) else {}


def _commit(run: Run) -> str:
    commit = str(_git(run).get("commit") or NOT_SAID)
    return commit[:12] if commit != NOT_SAID else commit


def _versions(run: Run) -> str:
    versions = run.result.surroundings.get("versions")
    return ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) and versions else NOT_SAID


def _preprocessing(run: Run) -> str:
    parts = run.result.preprocessing.items()
    return ", ".join(f"{k} {v if isinstance(v, str) else json.dumps(v)}" for k, v in parts) or NOT_SAID


def _resolution(run: Run) -> str:
    return " × ".join(map(str, run.result.resolution)) + " px"  # noqa: RUF001


# Properties that should be equal for every run of a table.
COMPARED: dict[str, Callable[[Run], str]] = {
    "git commit": _commit,
    "package versions": _versions,
    "Python version": lambda run: str(run.result.surroundings.get("python", NOT_SAID)),
    "preprocessing": _preprocessing,
    "resolution": _resolution,
}
DESCRIBED: dict[str, Callable[[Sequence[Run]], str]] = {
    "devices": lambda runs: _joined([run.result.device for run in runs]),
    "platform": lambda runs: _joined([str(run.result.surroundings.get("platform", NOT_SAID)) for run in runs]),
    "parameters": lambda runs: "; ".join(f"{num:,}" for num in sorted({run.result.num_params for run in runs})) or "–",  # noqa: RUF001
    "training FLOPs, all runs": lambda runs: f"{sum(run.result.train_flops for run in runs):.3g}",
    "examples trained on, all runs": lambda runs: f"{sum(run.result.num_train_examples for run in runs):,}",
    "seconds, all runs": lambda runs: f"{sum(run.result.seconds for run in runs):,.0f}",
    "first and last start": lambda runs: _starts(runs),
}


def _starts(runs: Sequence[Run]) -> str:
    times = sorted(str(started) for run in runs if (started := run.result.surroundings.get("started")))
    return " to ".join(dict.fromkeys((times[0], times[-1]))) if times else NOT_SAID
