"""`vit_jax VERB`, or `python -m vit_jax VERB`: the table of verbs. Only the module of the verb that runs is imported.

Exit codes: 0 done, 1 some runs of a sweep failed, 2 a mistake that the user can correct (one message, no traceback), 75 stopped
by SIGTERM or Ctrl-C (while training, after finishing the step and saving): the same command resumes. Signal handling starts only
after this module's imports, so it imports nothing heavy.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import NamedTuple

import vit_jax
from vit_jax.process import STOPPED, begin, finish, reports_user_errors
from vit_jax.types import UserError, nearest


class Verb(NamedTuple):
    """One line of the table.

    Args:
      about: text for `vit_jax --help`.
      stopped: the message when a signal ends the verb at once; "" for a verb that Python's own handlers may end.
    """

    about: str
    stopped: str = ""


VERBS = {  # each name is also its module's name in vit_jax.cli
    "train": Verb("trains or fine-tunes one run; started again on its --workdir, it resumes", STOPPED),
    "sweep": Verb(
        "runs a grid of runs; started again, only those that are missing", "stopped; the same command resumes"
    ),
    "report": Verb("writes the page and the tables of sweeps"),
    "evaluate": Verb("scores a checkpoint of any format on a data set, or on ImageNet and the sets beside it"),
    "explain": Verb("draws what a model learned: filters, positions, attention, layers"),
    "predict": Verb("classifies images with a checkpoint of any format"),
    "demo": Verb("serves a page in the browser on which checkpoints are tried"),
    "features": Verb("writes a checkpoint's features of a data set or a folder, to be read by probes and numpy"),
    "export": Verb("writes a checkpoint as one file that runs without vit_jax: StableHLO or ONNX"),
    "prepare": Verb("prepares, packs and checks data sets"),
    "dedup": Verb("finds copies of test images in a training set, and lists what to leave out"),
    "convert": Verb("converts a checkpoint: npz, Hugging Face, timm, Orbax"),
    "models": Verb("lists the released models: size, FLOPs, published accuracy, command"),
    "plan": Verb("counts parameters, tokens and FLOPs of a config, without its data"),
    "bench": Verb("times training, inference or the input pipeline of a config"),
    "completion": Verb("prints what makes a shell complete verbs, flags and config keys"),
    "quickstart": Verb("pre-trains and fine-tunes a small model on real digits, in two minutes", STOPPED),
}
EXAMPLE = "vit_jax train --config=finetune:variant=Ti/16,dataset=FOLDER --workdir=runs/mine"


def describe() -> str:
    """The text of `vit_jax --help`."""
    lines = "\n".join(f"  {name:<11} {verb.about}" for name, verb in VERBS.items())
    return f"  {EXAMPLE}\n\nusage: vit_jax VERB [flags]\n\n{lines}\n\n`vit_jax VERB --help` has the flags of a verb."


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs a verb; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    name = words[0] if words else "--help"
    if name in ("--help", "-h", "help"):
        print(describe())
        return 0 if words else 2
    if name == "--version":
        print(f"vit_jax {vit_jax.__version__}")
        return 0
    if name not in VERBS:
        raise UserError(f"there is no verb {name!r}; {nearest(name, VERBS)}; `vit_jax --help` says what each does")
    return importlib.import_module(f"vit_jax.cli.{name}").main(words[1:])


def program() -> None:
    """The entry point of the console script."""
    if "_ARGCOMPLETE" in os.environ:  # a shell completes a command line
        importlib.import_module("vit_jax.cli.completion").complete()
    stopped = VERBS[sys.argv[1]].stopped if len(sys.argv) > 1 and sys.argv[1] in VERBS else ""
    if stopped:
        begin(stopped)
        finish(main)
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`: the reader has seen enough, and Python's flush at exit would fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE  # as the shell reports a program that the signal ended
    sys.exit(code)
