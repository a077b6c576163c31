"""A config's keys for a person to read: each with its value, its type in words, and its line of a docstring."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from vit_jax import config as configs
from vit_jax.resolve import parts_of, resolve
from vit_jax.run.schema import SCHEMA
from vit_jax.values import describe_hint


def describe_keys(spec: str) -> str:
    """Describes every section's keys, in the form in which `--config.KEY=value` sets them.

    Raises:
      UserError: the config cannot be loaded or completed.
    """
    config = resolve(configs.load(spec), SCHEMA)
    lines = []
    for path, described, section in parts_of(config, SCHEMA):
        reader = described.chosen(section)
        assert reader is not None, "resolve checks names"
        notes, schema = documented(reader), configs.hints(reader)
        lines.append(f"\n--config.{path}.")
        for key, value in section.items():
            hint = describe_hint(schema[key][0]) if key in schema else "the name of what reads the section"
            lines.append(f"  {key}={_text(value)}\n      {hint}{': ' if notes.get(key) else ''}{notes.get(key, '')}")
    return "\n".join(
        [*lines, "\n--config.", f"  seed={config.seed}\n      an integer: the seed of everything that is drawn"]
    )


def _text(value: Any) -> str:
    """A value in the form in which a user types it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def documented(reader: Any) -> dict[str, str]:
    """{key: its text under `Args:`} of a function, or of a class and its base classes."""
    places = reversed(inspect.getmro(reader)) if inspect.isclass(reader) else [reader]
    return {key: text for place in places for key, text in _args(inspect.cleandoc(place.__doc__ or ""))}


def _args(docstring: str) -> Iterator[tuple[str, str]]:
    section = re.search(r"^Args:\n((?:  .*\n?|\n)*)", docstring, re.MULTILINE)
    for entry in re.split(r"\n(?=  \S)", section[1].rstrip()) if section else []:
        names, _, text = entry.strip().partition(": ")
        yield from ((name, " ".join(text.split())) for name in names.split(", "))
