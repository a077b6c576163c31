"""Writes the page of one or more sweeps, or of one or more runs.

The page of sweeps is index.html, with each table as CSV, Markdown and LaTeX beside it. The page of runs shows their scores,
curves, differences between their configs, and where their time went.

Sweeps with one layout share a table, with the difference to the first. Without --to, the page of one sweep goes to its folder's
report/. --watch rewrites the page as results come in, until all runs are done or you press Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vit_jax.cli.flags import Parser
from vit_jax.process import reports_user_errors
from vit_jax.types import UserError

EXAMPLES = """
vit_jax report runs/vtab
vit_jax report runs/vtab_b16 runs/vtab_scratch --to=pages/vtab
vit_jax report runs/vtab --watch=30
vit_jax report runs/cifar10
"""
WATCH_EVERY_S = 10.0


def seconds(text: str) -> float:
    """Parses the seconds of --watch."""
    value = float(text)
    if not 1 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"expected 1 to 86400 seconds, found {text}")
    return value


def target(folders: list[Path], to: Path | None) -> Path:
    """Decides the page's folder.

    Raises:
      UserError: there are several sweeps and no --to, or a file is in the way.
    """
    if to is None and len(folders) > 1:
        raise UserError(f"{len(folders)} sweeps or runs make one page; say where with --to=FOLDER")
    folder = to or folders[0] / "report"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--to {folder} is a file; give a folder, new or of an older report")
    return folder


def make_parser() -> Parser:
    """The flags."""
    parser = Parser("report", EXAMPLES, __doc__)
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="DIR", help="--workdir of `vit_jax sweep` or of `vit_jax train`"
    )
    parser.add_argument("--to", type=Path, help="folder of the page; default: report/ in the sweep's")
    parser.add_argument(
        "--watch",
        type=seconds,
        nargs="?",
        const=WATCH_EVERY_S,
        metavar="SECONDS",
        help=f"rewrite the page as results come in, at most this often; default: {WATCH_EVERY_S:g}",
    )
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs the verb; returns the exit code."""
    flags = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
    from vit_jax.report.page import write_report
    from vit_jax.report.render import PAGE
    from vit_jax.report.watch import watch

    try:
        to = target(flags.folders, flags.to)
        if flags.watch is not None:
            watch(flags.folders, to, flags.watch, lambda text: print(text, flush=True))
        else:
            progress = write_report(flags.folders, to)
            left = "" if progress.finished else f" ({progress.done} of {progress.expected} runs are done)"
            print(f"{to / PAGE}{left}")
            for text in progress.damaged:
                print(f"left out: {text}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 0
    return 0
