"""Completion of verbs, flags, their values and config keys: `eval "$(vit_jax completion)"`, in ~/.bashrc to keep it.

Keys of --config.SECTION.KEY come from the --config on the line, defaults included; loading it takes about two seconds.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from vit_jax import config as configs
from vit_jax.cli.flags import Parser
from vit_jax.types import UserError

EXAMPLES = """
vit_jax completion >> ~/.bashrc
vit_jax completion --shell=zsh >> ~/.zshrc
vit_jax completion --shell=fish > ~/.config/fish/completions/vit_jax.fish
"""


def make_parser() -> Parser:
    """The flags."""
    parser = Parser("completion", EXAMPLES, __doc__)
    parser.add_argument("--shell", choices=("bash", "zsh", "fish"), default="bash")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Prints the shell's function; returns the exit code."""
    import argcomplete

    flags = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
    shell = "bash" if flags.shell == "zsh" else flags.shell  # one text, which asks for its shell
    print(argcomplete.shellcode(["vit_jax"], shell=shell))
    return 0


def complete() -> None:
    """Answers the shell's function, which calls `vit_jax` with the line in COMP_LINE; ends the process."""
    import argcomplete

    from vit_jax.cli.main import VERBS

    words = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])].split(" ")
    if len(words) < 3 or words[1] not in VERBS:
        parser = argparse.ArgumentParser()
        parser.add_argument("verb", choices=VERBS)
    else:
        os.environ["_ARGCOMPLETE"] = "2"  # `vit_jax VERB` is the program: its flags begin at the third word
        parser = importlib.import_module(f"vit_jax.cli.{words[1]}").make_parser()
        for action in parser._actions:
            if "--config" in action.option_strings:
                action.completer = lambda **_: [*configs.shipped()]
        spec = next((word.removeprefix("--config=") for word in words if word.startswith("--config=")), "")
        if words[-1].startswith("--config.") and spec:
            for key in keys(spec):
                parser.add_argument(f"--config.{key}=")
    argcomplete.autocomplete(parser, always_complete_options="long")


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
