"""Runs a sweep: VTAB-1k, the fine-tuning grids of table 4, few-shot probes. Started again, it does only what is missing.

    python scripts/sweep.py --config=configs/vtab.py:init=ViT-B_16.npz --workdir=runs/vtab_b16
    python scripts/sweep.py --config=configs/vtab.py:init=ViT-B_16.npz,tasks=cifar100+dtd,lr=0.003+0.01 --workdir=runs/two
    python scripts/sweep.py --config=configs/finetune.py:init=ViT-B_16.npz,dataset=cifar10 --workdir=runs/c10 --parallel=4
    python scripts/sweep.py --config=configs/fewshot.py:init=ViT-B_16.npz --workdir=runs/few
    python scripts/sweep.py --config=configs/vtab.py:init=ViT-B_16.npz --workdir=runs/vtab_b16 --dry-run
    python scripts/sweep.py --config=configs/vtab.py:init=ViT-B_16.npz --workdir=runs/vtab_b16 --executor=slurm \\
        --gpus=1 --slurm=partition=gpu --slurm=mem=32G

Where there are several candidates (learning rates), each task is trained once with each on its development split; the best
is trained on the whole training set, once per seed, and scored on the test split. `--config.key=value` applies to every run.
`scripts/report.py DIR` draws the page. A task without data is named and left out. Exit codes: 0 all that has data is done, 1
some runs failed, 2 something to put right, 75 stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vit_jax.locks import hold
from vit_jax.main import parse_command_line
from vit_jax.process import EXIT_INTERRUPTED, Heed, begin, finish, reports_user_errors
from vit_jax.sweeps.cost import check_tasks, cost_of, describe_state
from vit_jax.sweeps.drive import Progress, claim, collect, drive, without_data
from vit_jax.sweeps.executors import Executor, LocalExecutor, visible_gpus
from vit_jax.sweeps.grid import Grid, load_grid
from vit_jax.sweeps.slurm import SlurmExecutor, parse_options
from vit_jax.sweeps.view import View
from vit_jax.train.folders import check_folder
from vit_jax.types import UserError

EXIT_FAILED = 1


def make_executor(flags: argparse.Namespace, folder: Path) -> Executor:
    """The executor that the flags name."""
    gpus = visible_gpus() if flags.executor == "local" else []
    if flags.executor == "local":
        return LocalExecutor(flags.parallel or len(gpus) or 1, gpus)
    return SlurmExecutor(
        folder / "slurm",
        parallel=flags.parallel or 64,
        minutes=flags.minutes,
        cores=flags.cores,
        gpus=flags.gpus,
        options=parse_options(flags.slurm),
    )


def dry_run(grid: Grid, folder: Path) -> None:
    """Prints the runs, what they cost and which are done."""
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
    """`1,234.5 TFLOP`; the unit suits the size."""
    size, unit = next((x for x in ((1e18, "E"), (1e15, "P"), (1e12, "T")) if flops >= x[0]), (1e9, "G"))
    return f"{flops / size:,.1f} {unit}FLOP"


class Once(logging.Filter):
    """Lets a warning through the first time: a task's splits are opened one by one, and each says the same."""

    def __init__(self) -> None:
        super().__init__()
        self._seen = set[str]()

    def filter(self, record: logging.LogRecord) -> bool:
        new = record.getMessage() not in self._seen
        self._seen.add(record.getMessage())
        return new


def interrupt(_: int) -> NoReturn:
    """What a signal does while runs are driven: they are told to stop, too."""
    raise KeyboardInterrupt


def sweep(flags: argparse.Namespace, overrides: list[tuple[str, str]]) -> int:
    """Checks, then shows or runs the sweep; returns the exit code."""
    import jax

    # The driver only checks and counts: it must not claim the accelerator that its runs need. Nothing of this is inherited.
    jax.config.update("jax_platforms", "cpu")
    folder = Path(os.path.expanduser(flags.workdir))
    check_folder(folder)
    grid = load_grid(flags.config, overrides)
    logging.getLogger("vit_jax.data.vtab.source").addFilter(Once())
    missing, weights = check_tasks(grid)
    described = dataclasses.replace(without_data(grid.sweep, missing), weights=weights)
    grid = dataclasses.replace(grid, sweep=described)
    print(f"{grid.sweep.title}: {grid.num_runs} runs over {len(grid.sweep.tasks) - len(missing)} tasks")
    for task, reason in missing.items():
        print(f"left out, and out of every mean: {task}: {reason}")
    if len(missing) == len(grid.sweep.tasks):
        raise UserError(
            "there is data for none of the tasks; `python scripts/prepare_data.py --check` says how to get it"
        )
    if flags.dry_run:
        dry_run(grid, folder)
        return 0
    with hold(folder, work="being swept"):
        claim(folder, grid)
        executor = make_executor(flags, folder)
        try:
            with Heed(interrupt), View(grid.sweep, executor.room()) as view:
                progress = drive(grid, folder, executor, retries=flags.retries, keep=flags.keep, show=view)
        except KeyboardInterrupt:
            print(f"stopped: {executor.stop()}", flush=True)
            return EXIT_INTERRUPTED
        except (UserError, OSError):
            print(f"stopped: {executor.stop()}", flush=True)
            raise
    return conclude(grid, folder, progress)


def conclude(grid: Grid, folder: Path, progress: Progress) -> int:
    """Prints how it ended; returns the exit code."""
    done = len(progress.results)
    print(f"{done} of {progress.total} runs are done; the page: python scripts/report.py {folder}")
    for key, reason in progress.failed.items():
        print(f"failed: {key}: {reason}", file=sys.stderr)
    if done < progress.total:
        print("the same command tries again what is missing", file=sys.stderr)
        return EXIT_FAILED
    return 0


@reports_user_errors
def main() -> int:
    """Runs; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", required=True, help="a config file that describes a sweep, and its arguments")
    parser.add_argument("--workdir", required=True, help="the sweep's folder; started again on it, it goes on")
    parser.add_argument("--executor", choices=("local", "slurm"), default="local", help="where runs go")
    parser.add_argument("--parallel", type=int, default=0, help="runs at a time (default: one a GPU; SLURM: 64)")
    parser.add_argument("--retries", type=int, default=2, help="how often a run that crashed is started again")
    parser.add_argument("--keep", choices=("final", "all", "none"), default="final", help="whose checkpoints stay")
    parser.add_argument("--dry-run", action="store_true", help="only say what would run, and what it would cost")
    parser.add_argument(
        "--minutes", type=int, default=240, help="SLURM: time limit; a longer run is requeued and goes on"
    )
    parser.add_argument("--cores", type=int, default=8, help="SLURM: CPUs of a job")
    parser.add_argument("--gpus", type=int, default=0, help="SLURM: GPUs of a job")
    parser.add_argument(
        "--slurm", action="append", default=[], metavar="KEY[=VALUE]", help="a further option of sbatch"
    )
    return sweep(*parse_command_line(sys.argv[1:], parser))


if __name__ == "__main__":
    begin("stopped; the same command goes on")
    finish(main)
