"""Runs a sweep: VTAB-1k, the fine-tuning grids of table 4, few-shot probes. Started again, it does only the missing runs.

If there are several candidates (learning rates), each task is trained once with each on its development split; the best is then
trained on the whole training set, once per seed, and scored on the test split. `--config.key=value` applies to every run.
`vit_jax report DIR` draws the page. A task without data is named and left out. Exit codes: 0 all tasks with data are done, 1
some runs failed, 2 a mistake to correct, 75 stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from vit_jax.cli.flags import Parser, parse_command_line
from vit_jax.process import reports_user_errors

EXAMPLES = """
vit_jax sweep --config=configs/vtab.py:init=ViT-B_16.npz --workdir=runs/vtab_b16
vit_jax sweep --config=configs/vtab.py:init=ViT-B_16.npz,tasks=cifar100+dtd,lr=0.003+0.01 --workdir=runs/two
vit_jax sweep --config=configs/finetune.py:init=ViT-B_16.npz,dataset=cifar10 --workdir=runs/c10 --parallel=4
vit_jax sweep --config=configs/fewshot.py:init=ViT-B_16.npz --workdir=runs/few
vit_jax sweep --config=configs/vtab.py:init=ViT-B_16.npz --workdir=runs/vtab_b16 --dry-run
vit_jax sweep --config=configs/vtab.py:init=ViT-B_16.npz --workdir=runs/vtab_b16 --executor=slurm \\
    --gpus=1 --slurm=partition=gpu --slurm=mem=32G
"""


def make_executor(flags: argparse.Namespace, folder: Path) -> Any:
    """The executor that the flags name."""
    from vit_jax.sweeps.executors import LocalExecutor, visible_gpus
    from vit_jax.sweeps.slurm import SlurmExecutor, parse_options

    if flags.executor == "local":
        gpus = visible_gpus()
        return LocalExecutor(flags.parallel or len(gpus) or 1, gpus)
    return SlurmExecutor(
        folder / "slurm",
        parallel=flags.parallel or 64,
        minutes=flags.minutes,
        cores=flags.cores,
        gpus=flags.gpus,
        options=parse_options(flags.slurm),
    )


def make_parser() -> Parser:
    """The flags."""
    parser = Parser("sweep", EXAMPLES, __doc__)
    parser.add_argument("--config", required=True, help="a config file that describes a sweep, and its arguments")
    parser.add_argument("--workdir", required=True, help="the sweep's folder; started again on it, it resumes")
    parser.add_argument("--executor", choices=("local", "slurm"), default="local", help="where runs go")
    parser.add_argument("--parallel", type=int, default=0, help="runs at a time (default: one a GPU; SLURM: 64)")
    parser.add_argument("--retries", type=int, default=2, help="how often a run that crashed is started again")
    parser.add_argument("--keep", choices=("final", "all", "none"), default="final", help="whose checkpoints stay")
    parser.add_argument("--dry-run", action="store_true", help="only say what would run, and what it would cost")
    parser.add_argument(
        "--minutes", type=int, default=240, help="SLURM: time limit; a longer run is requeued and resumes"
    )
    parser.add_argument("--cores", type=int, default=8, help="SLURM: CPUs of a job")
    parser.add_argument("--gpus", type=int, default=0, help="SLURM: GPUs of a job")
    parser.add_argument(
        "--slurm", action="append", default=[], metavar="KEY[=VALUE]", help="a further option of sbatch"
    )
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs the verb; returns the exit code."""
    flags, overrides = parse_command_line(sys.argv[1:] if argv is None else argv, make_parser())
    from vit_jax.sweeps.perform import perform

    return perform(
        flags.config,
        flags.workdir,
        overrides,
        lambda folder: make_executor(flags, folder),
        retries=flags.retries,
        keep=flags.keep,
        only_show=flags.dry_run,
    )
