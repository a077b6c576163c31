"""Performs a sweep from its config file to its exit code: checks the grid, shows or drives its runs, and prints how it ended."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from vit_jax.locks import hold
from vit_jax.process import EXIT_INTERRUPTED, Heed
from vit_jax.remote import is_url
from vit_jax.sweeps.cost import check_tasks, cost_of, describe_state
from vit_jax.sweeps.drive import Keep, Progress, claim, collect, drive, without_data
from vit_jax.sweeps.executors import Executor
from vit_jax.sweeps.grid import Grid, load_grid
from vit_jax.sweeps.view import View
from vit_jax.train.folders import check_folder
from vit_jax.types import UserError

EXIT_FAILED = 1


def dry_run(grid: Grid, folder: Path) -> None:
    """Prints the runs with their costs and states."""
    results = collect(grid, folder, {})
    traced: dict[str, int] = {}
    total = left = 0
    for task in (task for task in grid.sweep.tasks if not task.missing):
        chosen = grid.choose(task.name, results)
        to_choose = grid.final_runs(task.name, grid.candidates()[0]) if chosen is None else []
        runs = grid.dev_runs(task.name) + (grid.final_runs(task.name, chosen) if chosen is not None else to_choose)
        costs = {phase: cost_of(next(r for r in runs if r.phase == phase), traced) for phase in {r.phase for r in runs}}
        for run in runs:
            cost = costs[run.phase]
            name = f"{run.task}/final, the best of them, seed {run.seed}" if run in to_choose else run.key
            state = describe_state(run, folder, run.key in results)
            print(
                f"{name:<52} {cost.steps:>7,} steps {cost.examples:>12,} examples {show_flops(cost.flops):>12}  {state}"
            )
            total, left = total + cost.flops, left + cost.flops * (run.key not in results)
    spent = f"{show_flops(total)} of training in all, {show_flops(left)} to do (scoring left out)"
    print(f"{grid.num_runs} runs, {len(results)} done; {spent}")


def show_flops(flops: int) -> str:
    """`1,234.5 TFLOP`, in a unit that suits the size."""
    size, unit = next((x for x in ((1e18, "E"), (1e15, "P"), (1e12, "T")) if flops >= x[0]), (1e9, "G"))
    return f"{flops / size:,.1f} {unit}FLOP"


class Once(logging.Filter):
    """Lets each warning pass once: a task's splits are opened one by one, and each gives the same warning."""

    def __init__(self) -> None:
        super().__init__()
        self._seen = set[str]()

    def filter(self, record: logging.LogRecord) -> bool:
        new = record.getMessage() not in self._seen
        self._seen.add(record.getMessage())
        return new


def interrupt(_: int) -> NoReturn:
    """Handles a signal while runs are driven: raises, so that the runs are stopped too."""
    raise KeyboardInterrupt


def perform(
    spec: str,
    workdir: str,
    overrides: list[tuple[str, str]],
    make_executor: Callable[[Path], Executor],
    *,
    retries: int = 2,
    keep: Keep = "final",
    only_show: bool = False,
) -> int:
    """Checks, then shows or runs a sweep; returns the exit code.

    Args:
      spec: a config file that describes a sweep, and its arguments.
      workdir: the sweep's folder.
      overrides: (`a.b`, text) for every run.
      make_executor: the sweep's folder -> the executor of its runs.
      retries: see `drive`.
      keep: see `drive`.
      only_show: print the runs and their costs, and run nothing.
    """
    import jax

    # The driver only checks and counts, so it must not claim the accelerator that its runs need. Runs do not inherit this.
    jax.config.update("jax_platforms", "cpu")
    if is_url(workdir):
        raise UserError(
            f"workdir {workdir}: a sweep needs a local or mounted folder; mount the bucket and give the folder, or train single "
            "runs to URLs"
        )
    folder = Path(os.path.expanduser(workdir))
    check_folder(folder)
    grid = load_grid(spec, overrides)
    logging.getLogger("vit_jax.data.vtab.source").addFilter(Once())
    missing, weights = check_tasks(grid)
    described = dataclasses.replace(without_data(grid.sweep, missing), weights=weights)
    grid = dataclasses.replace(grid, sweep=described)
    print(f"{grid.sweep.title}: {grid.num_runs} runs over {len(grid.sweep.tasks) - len(missing)} tasks")
    for task, reason in missing.items():
        print(f"left out, and out of every mean: {task}: {reason}")
    if len(missing) == len(grid.sweep.tasks):
        raise UserError("there is data for none of the tasks; `vit_jax prepare --check` says how to get it")
    if only_show:
        dry_run(grid, folder)
        return 0
    with hold(folder, work="being swept"):
        claim(folder, grid)
        executor = make_executor(folder)
        try:
            with Heed(interrupt), View(grid.sweep, executor.room()) as view:
                progress = drive(grid, folder, executor, retries=retries, keep=keep, show=view)
        except KeyboardInterrupt:
            print(f"stopped: {executor.stop()}", flush=True)
            return EXIT_INTERRUPTED
        except (UserError, OSError):
            print(f"stopped: {executor.stop()}", flush=True)
            raise
    return conclude(grid, folder, progress)


def conclude(grid: Grid, folder: Path, progress: Progress) -> int:
    """Prints how the sweep ended; returns the exit code."""
    done = len(progress.results)
    print(f"{done} of {progress.total} runs are done; the page: vit_jax report {folder}")
    for key, reason in progress.failed.items():
        print(f"failed: {key}: {reason}", file=sys.stderr)
    if done < progress.total:
        print("the same command tries again what is missing", file=sys.stderr)
        return EXIT_FAILED
    return 0
