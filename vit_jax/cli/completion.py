"""Completion of verbs, flags, their values and config keys in bash: `eval "$(vit_jax completion)"`, in ~/.bashrc to keep it.

Keys of --config.SECTION.KEY come from the --config on the line, defaults included; loading it takes about two seconds.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterator
from typing import Any

from vit_jax import config as configs
from vit_jax.cli.flags import Parser
from vit_jax.types import UserError

EXAMPLES = 'vit_jax completion >> ~/.bashrc\neval "$(vit_jax completion)"'
SCRIPT = """\
_vit_jax() {
  local IFS=$'\\n'
  COMPREPLY=($(vit_jax completion --line="${COMP_LINE:0:$COMP_POINT}" 2>/dev/null))
}
complete -o default -o nospace -F _vit_jax vit_jax
"""


def make_parser() -> Parser:
    """The flags."""
    parser = Parser("completion", EXAMPLES, __doc__)
    parser.add_argument("--line", help="print the candidates for the end of this command line instead")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Prints the shell function, or candidates; returns the exit code."""
    flags = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
    if flags.line is None:
        print(SCRIPT, end="")
        return 0
    word = flags.line.rpartition(" ")[2]
    # bash also ends words at = and :, and replaces only the last piece by a candidate.
    done = max(word.rfind("="), word.rfind(":")) + 1
    for candidate in candidates(flags.line.split(" ")):
        if candidate.startswith(word):
            print(candidate[done:])
    return 0


def candidates(words: list[str]) -> Iterator[str]:
    """Yields every candidate for the last word of a command line."""
    from vit_jax.cli.main import VERBS

    if len(words) == 2:
        yield from (f"{name} " for name in VERBS)
    if len(words) < 3 or words[1] not in VERBS:
        return
    parser: argparse.ArgumentParser = importlib.import_module(f"vit_jax.cli.{words[1]}").make_parser()
    spec = next((word.removeprefix("--config=") for word in words if word.startswith("--config=")), "")
    if words[-1].startswith("--config.") and spec:
        yield from (f"--config.{key}=" for key in keys(spec))
        return
    for action in parser._actions:
        for flag in action.option_strings:
            values = action.choices or (configs.shipped() if flag == "--config" else ())
            yield f"{flag} " if action.nargs == 0 else f"{flag}="
            yield from (f"{flag}={value}" for value in values)


def keys(spec: str) -> list[str]:
    """All keys of a config, such as `optim.lr`, with those that have defaults; empty if the config cannot be loaded."""
    from vit_jax.resolve import resolve
    from vit_jax.run.schema import SCHEMA

    def flatten(section: Any, path: str) -> Iterator[str]:
        for key in section:
            name = f"{path}{key}"
            yield from flatten(section[key], f"{name}.") if hasattr(section[key], "items") else [name]

    try:
        config = resolve(configs.load(spec), SCHEMA)
    except UserError:
        return []
    return sorted(key for key in flatten(config, "") if re.fullmatch(r"[\w.]+", key))
