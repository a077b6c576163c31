"""One run: trains and evaluates as a config says, or resumes the run that --workdir holds.

`vit_jax train --help --config=SPEC` lists the keys of a config. Any of them can be set by --config.section.key=value; an unknown
key is an error that names the nearest known one. A stopped run (Ctrl-C, SIGTERM) finishes its step, saves, and exits with code
75; the same command resumes.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from vit_jax.cli.flags import Parser, parse_command_line
from vit_jax.process import EXIT_INTERRUPTED, reports_user_errors, set_up_process

EXAMPLES = """
vit_jax train --config=finetune:variant=Ti/16,dataset=FOLDER --workdir=runs/mine
vit_jax train --config=configs/pretrain.py:variant=B/16,dataset=imagenet21k --workdir=runs/b16 --config.optim.lr=0.001
vit_jax train --config=quickstart:pretrain --workdir=runs/mine --dry-run
"""


def make_parser() -> Parser:
    """The flags."""
    parser = Parser("train", EXAMPLES, __doc__)
    parser.add_argument(
        "--config", required=True, help="config file and its arguments, configs/finetune.py:dataset=cifar10"
    )
    parser.add_argument(
        "--workdir", required=True, help="the run's folder or URL; started again on the same one, a run resumes"
    )
    text = (
        "make the run in --workdir longer though the longer schedule changes the learning rates of steps that are done"
    )
    parser.add_argument("--extend", action="store_true", help=text)
    parser.add_argument("--dry-run", action="store_true", help="print the plan and what was settled, and stop")
    parser.add_argument("--coordinator", default="", help="host:port of process 0, or auto (SLURM, GKE, TPU VM)")
    parser.add_argument("--num-processes", type=int, default=1, help="processes of the run")
    parser.add_argument("--process-id", type=int, default=0, help="this process's number")
    text = "seconds in which all processes must have started (default: %(default)s)"
    parser.add_argument("--meeting-s", type=int, default=300, help=text)
    text = "seconds without a sign of life after which a process counts as gone (default: %(default)s)"
    parser.add_argument("--heartbeat-s", type=int, default=30, help=text)
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs the verb; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    spec = next((word.removeprefix("--config=") for word in words if word.startswith("--config=")), "")
    if spec and {"--help", "-h"} & {*words}:
        from vit_jax.run.keys import describe_keys

        print(describe_keys(spec))
        return 0
    flags, overrides = parse_command_line(words, make_parser())
    from vit_jax import config as configs

    config = configs.load(flags.config)
    given = dict(overrides)
    if {given.get("optim.name"), name := config.optim.get("name")} == {"adam", "sgd"} and "optim.lr" not in given:
        lr = f"optim.lr stays {config.optim.lr:g}, which was chosen for {name}"
        print(f"note: optim.name is {given['optim.name']} and {lr}; set it with --config.optim.lr", flush=True)
    if flags.dry_run:
        from vit_jax.run import dry_run

        print(dry_run(config, flags.workdir, overrides=overrides, extend=flags.extend))
        return 0
    if not flags.coordinator:
        return _run(config, flags.workdir, overrides, flags.extend)
    from vit_jax.peers import joined

    times = {"meeting_s": flags.meeting_s, "heartbeat_s": flags.heartbeat_s}
    with joined(flags.coordinator, flags.num_processes, flags.process_id, **times):
        return _run(config, flags.workdir, overrides, flags.extend)


def _run(config: Any, workdir: str, overrides: list[tuple[str, str]], extend: bool) -> int:
    """Trains; returns the exit code."""
    from vit_jax.run import run
    from vit_jax.train.loop import Interrupted

    set_up_process()
    # A run that SLURM restarts may find its own first process still ending; for a person, a second start is a mistake.
    requeued = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    try:
        result = run(config, workdir, overrides=overrides, wait=requeued, extend=extend)
    except Interrupted as stopped:
        print(stopped, flush=True)
        return EXIT_INTERRUPTED
    print(f"done: step {result.step}, {result.seconds:.0f} s; results, curves and checkpoints are in {result.workdir}")
    return 0
