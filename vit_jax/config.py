"""Configs: loading a config file and its arguments, comparing configs, calling the function that reads a section.

The keys of a config section are the keyword arguments of one function (or the fields of one class): its signature is the
schema, see `vit_jax.resolve`.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import runpy
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

# A config as its file wrote it, and a complete, immutable one.
from ml_collections import ConfigDict as Draft
from ml_collections import FrozenConfigDict as Config  # noqa: F401  (named here for all rooms)

from vit_jax.types import Duration, UserError, nearest
from vit_jax.values import DURATION, parse_value

SECTIONS = ("model", "data", "objective", "optim", "train", "evals", "checkpoint", "init", "seed")


def parse_arg(arg: str | None, **defaults: Any) -> types.SimpleNamespace:
    """Parses what follows the colon in `--config=FILE.py:variant=B/16,dataset=cifar10,smoke`.

    Args:
      arg: comma-separated `key=value`; a bare `key` means `key=True`. None or "" gives the defaults.
      **defaults: every key with its default; the default's type is the type of the value.

    Returns:
      A namespace with one attribute per default.

    Raises:
      UserError: unknown key or a value of another type, with the nearest right one.
    """
    values = dict(defaults)
    for item in filter(None, (arg or "").split(",")):
        key, equals, text = item.partition("=")
        if key not in defaults:
            raise UserError(f"config argument {key!r} is unknown; {nearest(key, defaults)}")
        kind = type(defaults[key])
        values[key] = parse_value(text if equals else "True", kind, f"config argument {key}")
    return types.SimpleNamespace(**values)


def parse_rates(text: str) -> tuple[float, ...]:
    """Parses a sweep's learning rates `lr`: `0.003+0.01` -> (0.003, 0.01)."""
    try:
        return tuple(float(rate) for rate in text.split("+"))
    except ValueError as error:
        raise UserError(f"lr={text}: expected learning rates with + between, as in 0.003+0.01") from error


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parses a sweep's `seeds`, a count: `3` -> (0, 1, 2)."""
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"seeds={text}: expected how many, 1 or more; seeds=3 runs seeds 0, 1 and 2")
    return tuple(range(int(text)))


def find_file(spec: str) -> tuple[str, str]:
    """Splits `FILE.py:ARGS` into file and arguments; `finetune:ARGS` is configs/finetune.py, wherever vit_jax is installed.

    Raises:
      UserError: no such file.
    """
    path, _, arg = spec.partition(":")
    if Path(path).is_file():
        return path, arg
    known, name = shipped(), path.removeprefix("configs/").removesuffix(".py")
    if name not in known:
        raise UserError(f"config file {path} does not exist; {nearest(name, known)}")
    return str(known[name]), arg


def shipped() -> dict[str, Path]:
    """Lists the configs that come with vit_jax, by name. configs/ is a folder of the installed package, but beside it in a
    checkout."""
    package = Path(__file__).resolve().parent
    folder = next((f for f in (package / "configs", package.parent / "configs") if f.is_dir()), package)
    return {file.stem: file for file in sorted(folder.glob("*.py"))}


def load(spec: str) -> Draft:
    """Loads `FILE.py` or `FILE.py:ARGS` by calling its `get_config(ARGS)`; see `find_file`.

    Raises:
      UserError: no such file, or its config does not have exactly the sections of `SECTIONS`.
    """
    path, arg = find_file(spec)
    namespace = run_file(path)
    if "get_config" not in namespace and "get_sweep" in namespace:
        raise UserError(f"config file {path} describes a sweep and no run; `vit_jax sweep --config={spec}` runs it")
    if "get_config" not in namespace:
        raise UserError(f"config file {path} has no function get_config(arg); see configs/quickstart.py for the shape")
    config = Draft(namespace["get_config"](arg or None), convert_dict=True)
    if set(config) != set(SECTIONS):
        raise UserError(f"config {path} has sections {sorted(config)}; expected exactly {sorted(SECTIONS)}")
    return config


def run_file(path: str) -> dict[str, Any]:
    """Runs a config file, which may import modules beside it, such as a user's own model or loss (docs/extend.md)."""
    folder = str(Path(path).absolute().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # at the end, so that a config named like a library does not hide the library
    return runpy.run_path(path)


def hints(fn: Callable, injected: Iterable[str] = ()) -> dict[str, tuple[Any, Any]]:
    """The schema that a function or class defines for a section: {key: (type hint, default or inspect.Parameter.empty)}."""
    # Use the fields of a dataclass, not its __init__: inherited annotations are names of another module.
    annotated = fn.__init__ if inspect.isclass(fn) and not dataclasses.is_dataclass(fn) else fn
    known = typing.get_type_hints(annotated, include_extras=True)
    hidden = {"self", "parent", *injected}
    if inspect.isclass(fn):
        hidden |= {"name"} if hasattr(fn, "apply") else set()  # the name of a linen module is not an option
    parameters = inspect.signature(fn).parameters.values()
    return {p.name: (known.get(p.name, Any), p.default) for p in parameters if p.name not in hidden}


def to_dict(config: Draft) -> dict[str, Any]:
    """The config as plain JSON types, in the form that is saved with a run."""
    return json.loads(json.dumps(config.to_dict()))


def differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """Lists the keys in which two saved configs differ, as `data.batch_size: 512 -> 256`."""
    lines = []
    for key in sorted({*old, *new}):
        here = f"{path}{key}"
        a, b = old.get(key, "(absent)"), new.get(key, "(absent)")
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{here}.")
        elif a != b:
            lines.append(f"{here}: {a!r} -> {b!r}")
    return lines


def steps(duration: int | str, *, steps_per_epoch: float, total: int = 0, path: str = "a duration") -> int:
    """Turns a `Duration` into optimizer steps.

    Args:
      duration: an int (steps), or text: `500 steps`, `90 epochs`, `5%`.
      steps_per_epoch: examples / batch size; may be fractional. 0 where it is not known.
      total: steps of the whole run, for percentages.
      path: the key's name for messages.

    Raises:
      UserError: not a duration, or a unit that cannot be converted here.
    """
    match = DURATION.fullmatch(str(duration))
    if not match:
        raise UserError(f'{path} is {duration!r}; expected steps as in 500, or "90 epochs", "500 steps", "5%"')
    number, unit = float(match.group(1)), match.group(2) or "steps"
    scale = {"s": 1.0, "e": steps_per_epoch, "%": total / 100}[unit[0]]
    if not scale:
        raise UserError(f"{path} is {duration!r}, which cannot be converted here; give it in steps")
    # Round percentages up: the fifth interval of every "20%" then reaches the last step, instead of ending one step before.
    return math.ceil(round(number * scale, 6)) if unit == "%" else round(number * scale)


def build(
    fn: Callable, section: Mapping[str, Any], to_steps: Callable[[int | str], int] | None = None, **injected: Any
):
    """Calls `fn` with a section's keys, with durations converted to steps, and the parameters that the program supplies.

    Args:
      fn: function or class.
      section: a completed section.
      to_steps: converts the values of parameters annotated `Duration`; None leaves them.
      **injected: the parameters that configs do not set.
    """
    schema = hints(fn)
    arguments = {}
    for key, value in section.items():
        if key in schema:
            arguments[key] = to_steps(value) if to_steps and schema[key][0] == Duration else value
    return fn(**arguments, **injected)
