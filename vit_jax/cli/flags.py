"""The shared part of all verbs: parsing a command line, and flags that several verbs have.

Flags are written with dashes; underscores and the names of older versions are accepted too. This module imports nothing
heavy: `--help` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from vit_jax.types import UserError, nearest

T = TypeVar("T")

MODEL_HELP = (
    "checkpoint: file, folder, workdir (WORKDIR@best, @last, @STEP), URL of one, or released name (augreg:B/16)"
)
SET_HELP = (
    "what the checkpoint cannot say or what should be otherwise; repeatable. num_heads=3 and grid=4,6 (patches of its "
    "positions) where the file does not say; resolution=384,384 resizes the positions, by resize=bicubic; channels=1; "
    "weights=average of a vit_jax run; num_classes=0 leaves the head; gelu=erf, norm_eps=1e-6, dtype=bfloat16, "
    "pool=unpooled or any other field of the model"
)


class Parser(argparse.ArgumentParser):
    """A verb's parser, whose help begins with examples.

    Args:
      verb: the verb's name.
      examples: command lines.
      about: the verb's docstring; None under `python -OO`.
      old: {flag of older versions: its name now}.
    """

    def __init__(self, verb: str, examples: str, about: str | None, *, old: Mapping[str, str] | None = None):
        super().__init__(
            prog=f"vit_jax {verb}",
            description=about or "",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._examples, self._old = examples.strip(), dict(old or {})

    def format_help(self) -> str:
        examples = "\n".join(f"  {line}" for line in self._examples.splitlines())
        return f"{examples}\n\n{super().format_help()}"

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args([self._today(word) for word in words], namespace)

    def _today(self, word: str) -> str:
        """Converts a word of the command line to the current spelling: `--data_dir=x` becomes `--data-dir=x`."""
        flag, equals, value = word.partition("=")
        if not flag.startswith("--") or flag.startswith("--config."):
            return word
        return self._old.get(flag, flag.replace("_", "-")) + equals + value


def parse_command_line(
    argv: list[str], parser: argparse.ArgumentParser
) -> tuple[argparse.Namespace, list[tuple[str, str]]]:
    """Splits a command line into a parser's flags and the `--config.a.b=value` overrides.

    Raises:
      UserError: a flag is neither; the message names the nearest valid one.
    """
    required = [action for action in parser._actions if action.required]
    for action in required:
        action.required = False  # report a misspelt flag before the required flag that it should have been
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


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds `--model` and the flags that go with it: `--weights`, and `--set`, which `convert.load.parse_overrides` reads."""
    parser.add_argument("--model", required=True, help=MODEL_HELP)
    add_weights(parser)
    add_set(parser)


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Adds `--weights`."""
    parser.add_argument("--weights", choices=("raw", "average"), default="raw", help="of a vit_jax workdir")


def add_set(parser: argparse.ArgumentParser) -> None:
    """Adds `--set KEY=VALUE`."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=SET_HELP)


def track(items: Iterable[T], total: int, what: str, *, prints: bool = False) -> Iterable[T]:
    """Shows a bar on a terminal's standard error while `total` items are worked off; `prints` says that each prints a line, which
    is progress enough where standard output is a terminal too."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal or (prints and sys.stdout.isatty()):
        yield from items
        return
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    # Redirected, rich would move what is printed from standard output to the bar's own stream.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        yield from progress.track(items, total, description=what)


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Adds `--data-dir`."""
    text = "where TFDS data sets are (default: $TFDS_DATA_DIR or ~/tensorflow_datasets)"
    parser.add_argument("--data-dir", default="", help=text)
