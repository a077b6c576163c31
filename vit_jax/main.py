"""`python -m vit_jax.main --config=configs/NAME.py:ARGS --workdir=DIR --config.key=value`: one run, from the shell.

Exit codes: 0 finished, 2 something the user can put right (one message, no traceback), 75 stopped by SIGTERM or Ctrl-C
(while training, after finishing the step and saving): the same command resumes. What is imported here is imported before
signals are heard: nothing heavy.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from vit_jax.process import EXIT_INTERRUPTED, begin, finish, first_paragraph, prepare_process, reports_user_errors
from vit_jax.types import UserError, nearest


def parse_command_line(
    argv: list[str], parser: argparse.ArgumentParser
) -> tuple[argparse.Namespace, list[tuple[str, str]]]:
    """Splits a command line into a parser's flags and the `--config.a.b=value` overrides.

    Raises:
      UserError: a flag that is neither, with the nearest right one.
    """
    required = [action for action in parser._actions if action.required]
    for action in required:
        action.required = False  # a misspelt flag is told before the one that it leaves missing
    flags, rest = parser.parse_known_args(argv)
    overrides = []
    for item in rest:
        key, equals, value = item.removeprefix("--").partition("=")
        if not item.startswith("--config.") or not equals:
            if item.startswith("--config.") and not equals:
                raise UserError(f"argument {item!r} has no value; write {item}=VALUE, in one word")
            known = [option for action in parser._actions for option in action.option_strings]
            raise UserError(
                f"argument {item!r} is unknown; overrides are --config.section.key=value; {nearest(item, known)}"
            )
        overrides.append((key.removeprefix("config."), value))
    missing = [action.option_strings[0] for action in required if getattr(flags, action.dest) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} must be given; {parser.format_usage().strip()}")
    return flags, overrides


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m vit_jax.main", description=first_paragraph(__doc__), allow_abbrev=False
    )
    parser.add_argument(
        "--config", required=True, help="config file and its arguments, configs/finetune.py:dataset=cifar10"
    )
    parser.add_argument(
        "--workdir", required=True, help="the run's folder; started again on the same one, a run resumes"
    )
    parser.add_argument("--coordinator", default="", help="host:port of process 0, or auto (SLURM, GKE, TPU VM)")
    parser.add_argument("--num_processes", type=int, default=1, help="processes of the run")
    parser.add_argument("--process_id", type=int, default=0, help="this process's number")
    flags, overrides = parse_command_line(sys.argv[1:] if argv is None else argv, parser)
    from vit_jax import config as configs

    config = configs.load(flags.config)
    if not flags.coordinator:
        return _run(config, flags.workdir, overrides)
    from vit_jax.peers import joined

    with joined(flags.coordinator, flags.num_processes, flags.process_id):
        return _run(config, flags.workdir, overrides)


def _run(config: Any, workdir: str, overrides: list[tuple[str, str]]) -> int:
    """Runs; returns the exit code."""
    from vit_jax.run import run
    from vit_jax.train.loop import Interrupted

    prepare_process()
    # What a scheduler has started again finds its own first life at its end, where a person's second start is a mistake.
    requeued = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    try:
        result = run(config, workdir, overrides=overrides, wait=requeued)
    except Interrupted as stopped:
        print(stopped, flush=True)
        return EXIT_INTERRUPTED
    print(f"done: step {result.step}, {result.seconds:.0f} s; results, curves and checkpoints are in {result.workdir}")
    return 0


if __name__ == "__main__":
    begin()
    finish(main)
