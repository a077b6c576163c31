"""Configs: loading a config file, overriding its keys, checking it against signatures, saving it with a run.

A config section is the keyword arguments of one function (or the fields of one class): the signature is the schema. So a
key that nothing reads, a misspelt key or a value of the wrong type is an error that names the nearest right one, and a
new option is a new parameter and nothing else. Defaults of the signature are written into the config before it is shown
and saved, so no value a run used is left unsaid.
"""

from __future__ import annotations

import inspect
import json
import math
import runpy
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from vit_jax.types import Duration, UserError, nearest
from vit_jax.values import DURATION, conforms, describe_hint, hint_of, normalise, parse_value

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
    """The learning rates of a sweep's `lr`: `0.003+0.01` -> (0.003, 0.01)."""
    try:
        return tuple(float(rate) for rate in text.split("+"))
    except ValueError as error:
        raise UserError(f"lr={text}: expected learning rates with + between, as in 0.003+0.01") from error


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds of a sweep's `seeds`, which is their number: `3` -> (0, 1, 2)."""
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"seeds={text}: expected how many, 1 or more; seeds=3 runs seeds 0, 1 and 2")
    return tuple(range(int(text)))


def find_file(spec: str) -> tuple[str, str]:
    """The file and the arguments of `FILE.py:ARGS`; `finetune:ARGS` is configs/finetune.py, wherever vit_jax is installed.

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
    """The configs that come with vit_jax, by name. Installed, configs/ is a folder of the package; in a checkout, beside it."""
    package = Path(__file__).resolve().parent
    folder = next((f for f in (package / "configs", package.parent / "configs") if f.is_dir()), package)
    return {file.stem: file for file in sorted(folder.glob("*.py"))}


def load(spec: str) -> ml_collections.ConfigDict:
    """Loads `FILE.py` or `FILE.py:ARGS` by calling its `get_config(ARGS)`; see `find_file`.

    Raises:
      UserError: no such file, or its config does not have exactly the sections of `SECTIONS`.
    """
    path, arg = find_file(spec)
    namespace = runpy.run_path(path)
    if "get_config" not in namespace and "get_sweep" in namespace:
        raise UserError(f"config file {path} describes a sweep and no run; `vit_jax sweep --config={spec}` runs it")
    if "get_config" not in namespace:
        raise UserError(f"config file {path} has no function get_config(arg); see configs/quickstart.py for the shape")
    config = ml_collections.ConfigDict(namespace["get_config"](arg or None), convert_dict=True)
    if set(config) != set(SECTIONS):
        raise UserError(f"config {path} has sections {sorted(config)}; expected exactly {sorted(SECTIONS)}")
    return config


def hints(fn: Callable, injected: Iterable[str] = ()) -> dict[str, tuple[Any, Any]]:
    """The schema that a function or class gives a section: {key: (type hint, default or inspect.Parameter.empty)}."""
    known = typing.get_type_hints(fn.__init__ if inspect.isclass(fn) else fn, include_extras=True)
    hidden = {"self", "parent", *injected}
    if inspect.isclass(fn):
        known |= typing.get_type_hints(fn, include_extras=True)
        hidden |= {"name"} if hasattr(fn, "apply") else set()  # a linen module's own name, not an option
    parameters = inspect.signature(fn).parameters.values()
    return {p.name: (known.get(p.name, Any), p.default) for p in parameters if p.name not in hidden}


def complete(section: ml_collections.ConfigDict, fn: Callable, path: str, injected: Iterable[str] = ()) -> list[str]:
    """Checks a section against a signature and writes the signature's defaults into it.

    Args:
      section: changed in place: defaults filled in, lists made tuples, 224 made (224, 224) where a pair belongs.
      fn: the function or class whose keyword arguments the section is; `name`, if in the section, chose it from a table.
      path: how to name the section in messages.
      injected: parameters the program supplies, which a config must not set.

    Returns:
      One message per mistake; empty if there is none.
    """
    schema, errors = hints(fn, injected), []
    for key in list(section):
        if key == "name" and key not in schema:
            continue
        if key not in schema:
            errors.append(f"config.{path}.{key} is read by nothing; {nearest(key, schema)}")
            continue
        hint = schema[key][0]
        value = normalise(section[key], hint)
        if not conforms(value, hint):
            errors.append(f"config.{path}.{key} is {section[key]!r}; expected {describe_hint(hint)}")
        else:
            _assign(section, key, value)
    for key, (hint, default) in schema.items():
        if key in section:
            continue
        if default is inspect.Parameter.empty:
            errors.append(f"config.{path}.{key} is missing; expected {describe_hint(hint)}")
        else:
            _assign(section, key, default)
    return errors


def override(config: ml_collections.ConfigDict, assignments: Iterable[tuple[str, str]]) -> None:
    """Applies `--config.a.b=value` overrides, in order.

    Args:
      config: a completed config, changed in place.
      assignments: (`a.b`, text). Text is read as the type of the value it replaces; for `init` it is the `path`.

    Raises:
      UserError: unknown keys or wrong types, all of them at once.
    """
    errors = []
    for path, text in assignments:
        *parents, key = path.split(".")
        section: Any = config
        for i, parent in enumerate(parents):
            if not isinstance(section, ml_collections.ConfigDict) or parent not in section:
                errors.append(f"config.{'.'.join(parents[: i + 1])} does not exist; {_near_key(section, parent)}")
                break
            section = section[parent]
        else:
            if not isinstance(section, ml_collections.ConfigDict) or key not in section:
                errors.append(f"config.{path} does not exist; {_elsewhere(config, key) or _near_key(section, key)}")
            elif isinstance(section[key], ml_collections.ConfigDict) and "path" in section[key]:
                _assign(section[key], "path", text)
            elif isinstance(section[key], ml_collections.ConfigDict):
                errors.append(f"config.{path} is a section; set one of its keys: {', '.join(section[key])}")
            else:
                try:
                    _assign(section, key, parse_value(text, hint_of(section[key]), f"config.{path}"))
                except UserError as error:
                    errors.append(str(error))
    if errors:
        raise UserError("\n".join(errors))


def to_dict(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as plain JSON types, as it is saved with a run."""
    return json.loads(json.dumps(config.to_dict()))


def differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """Lists the keys in which two saved configs differ, as `data.batch_size: 512 -> 256`."""
    found = []
    for key in sorted({*old, *new}):
        here = f"{path}{key}"
        a, b = old.get(key, "(absent)"), new.get(key, "(absent)")
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{here}.")
        elif a != b:
            found.append(f"{here}: {a!r} -> {b!r}")
    return found


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
    # Upwards for shares: the last "20%" is then the last step and not the one before it.
    return math.ceil(round(number * scale, 6)) if unit == "%" else round(number * scale)


def build(
    fn: Callable, section: Mapping[str, Any], to_steps: Callable[[int | str], int] | None = None, **injected: Any
):
    """Calls `fn` with a section's keys, durations turned into steps, and what the program supplies.

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


def _assign(section: ml_collections.ConfigDict, key: str, value: Any) -> None:
    with section.unlocked(), section.ignore_type():
        if isinstance(section.get(key), list):
            del section[key]  # or ConfigDict makes a list of the tuple that replaces it
        section[key] = value


def _elsewhere(config: ml_collections.ConfigDict, key: str) -> str:
    """`did you mean config.optim.lr?` of a key that exactly other sections have; "" if none has it."""
    sections = [name for name, section in config.items() if isinstance(section, ml_collections.ConfigDict)]
    found = [f"config.{name}.{key}" for name in sections if key in config[name]]
    return f"did you mean {' or '.join(found)}?" if found else ""


def _near_key(section: Any, key: str) -> str:
    return nearest(key, section) if isinstance(section, ml_collections.ConfigDict) else "its parent is not a section"
