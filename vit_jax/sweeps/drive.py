"""Runs a sweep to its end: starts missing runs, retries crashed ones, and counts no run twice.

The driver holds no state that matters: the files show which runs are done, chosen and left to do. It may be killed at any moment,
and resumes when started again.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from vit_jax.config import differences
from vit_jax.locks import LOCK_FILE
from vit_jax.process import EXIT_INTERRUPTED, EXIT_USER_ERROR
from vit_jax.run.record import is_untrained
from vit_jax.sweeps.executors import Executor
from vit_jax.sweeps.grid import Grid, Run, identity_of
from vit_jax.sweeps.job import LOG_FILE, Keep, read_outcome, write_job
from vit_jax.sweeps.results import SWEEP_FILE, Result, Sweep, read_result, read_results, read_sweep, write_sweep
from vit_jax.types import UserError

POLL_S = 0.2


@dataclasses.dataclass(frozen=True)
class Progress:
    """The state of a sweep.

    Args:
      total: runs of the whole sweep.
      results: {run.key: result} of the runs that are done.
      running: keys of the runs that work or wait in a queue.
      failed: {run.key: why}.
      began: number of results when this driver started.
    """

    total: int
    results: dict[str, Result]
    running: tuple[str, ...]
    failed: dict[str, str]
    began: int


def claim(folder: Path, grid: Grid) -> None:
    """Claims a folder for this sweep, or checks that it holds this sweep. Once a run has saved a checkpoint, only seeds and tasks
    may be added; everything else must stay the same.

    Raises:
      UserError: the folder holds another sweep, or other files.
    """
    if not (folder / SWEEP_FILE).exists():
        locks = (LOCK_FILE, ".driver")  # older versions used the second name
        others = sorted(p.name for p in folder.iterdir() if p.name not in locks) if folder.exists() else []
        if others:
            raise UserError(
                f"workdir {folder} is not empty and holds no sweep (found {', '.join(others[:5])}); give a new one"
            )
        write_sweep(folder, grid.sweep)
        return
    old, new = read_sweep(folder), grid.sweep
    changed = [] if _is_untrained(folder) else _changes(old, new)
    if changed:
        raise UserError(
            f"workdir {folder} holds another sweep; give this one a --workdir of its own. They differ in:\n  "
            + "\n  ".join(changed)
        )
    write_sweep(folder, new)


def _is_untrained(folder: Path) -> bool:
    """Whether no run of a sweep has saved or finished anything, so that the sweep may still be corrected."""
    return not read_results(folder) and all(is_untrained(place) for place in (folder / "runs").glob("*/*"))


def _changes(old: Sweep, new: Sweep) -> list[str]:
    """The differences between two sweeps, as keys that a user typed; if these are equal, as the values that resulted."""
    fields = ("title", "layout", "label", "metric", "candidates")
    changed = [f"{x}: {getattr(old, x)!r} -> {getattr(new, x)!r}" for x in fields if getattr(old, x) != getattr(new, x)]
    if changed:
        changed = differences(_asked(old), _asked(new)) or changed
    if old.weights != new.weights:
        changed.append("weights: the files of the checkpoint that its runs start from are others than when it began")
    gone = {task.name for task in old.tasks} - {task.name for task in new.tasks}
    changed += [f"tasks: without {', '.join(sorted(gone))}"] if gone else []
    changed += [f"seeds: {old.seeds} -> {new.seeds}"] if new.seeds[: len(old.seeds)] != old.seeds else []
    return changed


def _asked(sweep: Sweep) -> dict[str, str]:
    """The config file's arguments and the overrides that define a sweep, without those that may grow."""
    file, _, arguments = sweep.config.partition(":")
    pairs = (item.partition("=") for item in arguments.split(",") if item)
    given = {key: value or "True" for key, _, value in pairs}
    kept = {key: value for key, value in given.items() if key not in ("seeds", "tasks")}
    return {"config": Path(file).name, **kept, **{f"config.{key}": x for key, x in sweep.overrides.items()}}


def without_data(sweep: Sweep, missing: dict[str, str]) -> Sweep:
    """The sweep with unreadable tasks marked as missing."""
    tasks = tuple(dataclasses.replace(task, missing=missing.get(task.name, "")) for task in sweep.tasks)
    return dataclasses.replace(sweep, tasks=tasks)


def collect(grid: Grid, folder: Path, known: dict[str, Result]) -> dict[str, Result]:
    """Every existing result of this sweep's runs, by key; results in `known` are not read again.

    Raises:
      UserError: a result belongs to another config.
    """
    results = dict(known)
    while True:
        new = [run for run in grid.known_runs(results) if run.key not in results]
        finished = {run.key: result for run in new if (result := _read_checked(run, folder)) is not None}
        if not finished:
            return results
        results |= finished


def _read_checked(run: Run, folder: Path) -> Result | None:
    place = run.folder(folder)
    result = read_result(place)
    if result is not None and result.identity != (asked := identity_of(run)):
        raise UserError(
            f"{place}/result.json is of another config than {run.config} with this sweep's overrides (hash {result.identity}, "
            f"expected {asked}): the config file or an override changed. Give another --workdir, or move {place} away"
        )
    return result


def drive(
    grid: Grid, folder: Path, executor: Executor, *, retries: int, keep: Keep, show: Callable[[Progress], None]
) -> Progress:
    """Starts missing runs until nothing more can be done.

    Args:
      grid: the sweep, with unreadable tasks marked.
      folder: its workdir, locked and claimed.
      executor: starts the runs.
      retries: restarts per crashed run. A run that ended with a UserError is not restarted.
      keep: the runs whose checkpoints are kept when they are done.
      show: called with the progress, at least whenever it changes.

    Returns:
      The last progress: complete, or with the reasons why not.
    """
    results = collect(grid, folder, {})
    began, running, failed = len(results), dict[Path, Run](), dict[str, str]()
    crashes: dict[str, int] = {}
    adopted: set[str] = set()
    while True:
        todo = [run for run in grid.known_runs(results) if _can_start(run, results, running, failed)]
        for run in todo:
            if run.key not in adopted and executor.adopt(run.folder(folder)):
                running[run.folder(folder)] = run
            adopted.add(run.key)  # asked once per run: this driver starts all later ones
        fresh = [run for run in todo if run.folder(folder) not in running][: max(0, executor.room())]
        for run in fresh:
            write_job(run.folder(folder), run, keep)
            running[run.folder(folder)] = run
        if fresh:
            executor.start([run.folder(folder) for run in fresh])
        progress = Progress(grid.num_runs, results, tuple(run.key for run in running.values()), failed, began)
        show(progress)
        if not running:
            return progress
        for place in executor.ended():
            run = running.pop(place)
            result = _read_checked(run, folder)
            if result is not None:
                results = {**results, run.key: result}
            elif problem := _problem(place, crashes, run.key, retries):
                failed[run.key] = problem
        time.sleep(POLL_S)


def _can_start(run: Run, results: dict[str, Result], running: dict[Path, Run], failed: dict[str, str]) -> bool:
    waits = run.after and f"{run.task}/{run.after}" not in results
    busy = any(run.key == other.key for other in running.values())
    return not (run.key in results or run.key in failed or waits or busy)


def _problem(place: Path, crashes: dict[str, int], key: str, retries: int) -> str:
    """Why a run that ended without a result will not be restarted; "" if it will be."""
    outcome = read_outcome(place)
    if outcome is not None and outcome[0] == EXIT_USER_ERROR:
        return outcome[1].removeprefix("error: ")
    if outcome is not None and outcome[0] == EXIT_INTERRUPTED:
        return ""
    crashes[key] = crashes.get(key, 0) + 1
    if crashes[key] <= retries:
        return ""
    log = place / LOG_FILE
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return f"crashed {crashes[key]} times; the end of {log}: {lines[-1] if lines else '(empty)'}"
