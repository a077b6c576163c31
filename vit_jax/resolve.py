"""Completes and checks a config as its file wrote it: the signature of the function that reads a section is the section's schema.

So a key that nothing reads, a misspelt key or a value of the wrong type is an error that names the nearest right one, and a new
option is a new parameter and nothing else. Defaults are written in, so every value that a run used is recorded.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from vit_jax.config import Config, Draft, hints
from vit_jax.types import Duration, UserError, nearest
from vit_jax.values import DURATION, conforms, describe_hint, hint_of, normalise, parse_value


class Section(NamedTuple):
    """The schema of a section.

    Args:
      reader: the function or class whose keyword arguments are the section's keys; or a table of them, from which `name` chooses.
      injected: parameters that the program supplies, which a config must not set.
      many: the section holds sections of one kind, under names that the user chooses.
      left_open: {key: older spellings of None}: keys that are None until the run settles them.
      older: {key: {text of an older value: today's value}}.
    """

    reader: Callable | Mapping[str, Callable]
    injected: tuple[str, ...] = ()
    many: bool = False
    left_open: Mapping[str, tuple[Any, ...]] = {}
    older: Mapping[str, Mapping[str, Any]] = {}

    def chosen(self, section: Mapping[str, Any]) -> Callable | None:
        """The function that reads a section; None if its `name` is in no table."""
        if not isinstance(self.reader, Mapping):
            return self.reader
        name = section.get("name")
        return self.reader.get(name) if isinstance(name, str) else None

    def fill(self, section: Draft, path: str) -> list[str]:
        """Calls `fill` with the function that the section chooses."""
        fn = self.chosen(section)
        if fn is None:
            known = self.reader if isinstance(self.reader, Mapping) else {}
            return [f"config.{path}.name is {section.get('name')!r}; {nearest(str(section.get('name')), known)}"]
        for key, values in self.older.items():
            if key in section and key in hints(fn, self.injected):
                _assign(section, key, values.get(str(section[key]).lower(), section[key]))
        return fill(section, fn, path, self.injected, self.left_open)


Schema = Mapping[str, Section]


def resolve(draft: Mapping[str, Any], schema: Schema, overrides: Iterable[tuple[str, str]] = ()) -> Config:
    """Applies overrides to a config, fills in defaults and checks everything, in one pass.

    Args:
      draft: as `load` returns it; not changed.
      schema: the schema of its sections.
      overrides: (`a.b`, text) from `--config.a.b=text`, parsed with the type hints of the function that the section chooses
        after all overrides.

    Returns:
      The config with every key in it; keys that the run settles are None.

    Raises:
      UserError: every mistake found, one per line.
    """
    config = Draft(draft.to_dict() if isinstance(draft, Draft) else draft)
    # Apply names first, so that `--config.objective.name=mine --config.objective.weights=1,2` works in any order.
    errors = override(config, sorted(overrides, key=lambda pair: not pair[0].endswith(".name")), schema)
    for path, section, part in parts_of(config, schema):
        errors += section.fill(part, path)
    if not isinstance(config.seed, int) or config.seed < 0:
        errors.append(f"config.seed is {config.seed!r}; expected an integer, 0 or more")
    if errors:
        raise UserError("\n".join(dict.fromkeys(errors)))
    return Config(config)


def parts_of(config: Draft, schema: Schema) -> list[tuple[str, Section, Draft]]:
    """(path, schema, section) of every section that one function reads."""
    parts = []
    for name, section in schema.items():
        if section.many:
            parts += [(f"{name}.{key}", section, part) for key, part in config[name].items()]
        else:
            parts.append((name, section, config[name]))
    return parts


def fill(
    section: Draft,
    fn: Callable,
    path: str,
    injected: Iterable[str] = (),
    left_open: Mapping[str, tuple[Any, ...]] = types.MappingProxyType({}),
) -> list[str]:
    """Checks a section against a signature and writes the signature's defaults into it.

    Args:
      section: changed in place: defaults are filled in, lists become tuples, 224 becomes (224, 224) where a pair is expected.
      fn: the function or class whose keyword arguments are the section's keys; `name`, if in the section, chose it from a table.
      path: the section's name in messages.
      injected, left_open: see `Section`.

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
        if key in left_open and (value is None or value in left_open[key]):
            _assign(section, key, None)
        elif not conforms(value, hint):
            errors.append(f"config.{path}.{key} is {section[key]!r}; expected {describe_hint(hint)}")
        else:
            _assign(section, key, value)
    for key, (hint, default) in schema.items():
        if key in section:
            continue
        if key in left_open and (default is inspect.Parameter.empty or default in left_open[key]):
            _assign(section, key, None)
        elif default is inspect.Parameter.empty:
            errors.append(f"config.{path}.{key} is missing; expected {describe_hint(hint)}")
        else:
            _assign(section, key, default)
    return errors


def override(config: Draft, assignments: Iterable[tuple[str, str]], schema: Schema | None = None) -> list[str]:
    """Applies `--config.a.b=value` overrides, in order.

    Args:
      config: changed in place.
      assignments: (`a.b`, text). For `init`, the text is its `path`.
      schema: schema of the sections, which gives each text its type. Without one, the type is that of the replaced value.

    Returns:
      One message per mistake: unknown keys, values of the wrong type.
    """
    errors = []
    for path, text in assignments:
        *parents, key = path.split(".")
        section: Any = config
        for i, parent in enumerate(parents):
            if not isinstance(section, Draft) or parent not in section:
                errors.append(f"config.{'.'.join(parents[: i + 1])} does not exist; {_near_key(section, parent)}")
                break
            section = section[parent]
        else:
            try:
                if not isinstance(section, Draft):
                    raise UserError(f"config.{path} does not exist; its parent is not a section")
                _set_text(config, section, parents, key, text, schema)
            except UserError as error:
                errors.append(str(error))
    return errors


def _set_text(config: Draft, section: Draft, parents: list[str], key: str, text: str, schema: Schema | None) -> None:
    """Sets one key from text.

    Raises:
      UserError: the section has no such key, or the text is of another type.
    """
    path = ".".join([*parents, key])
    described = (schema or {}).get(parents[0]) if parents else None
    if described is not None and described.many == (len(parents) == 2) and (reader := described.chosen(section)):
        known = hints(reader, described.injected)
        named: dict[str, tuple[Any, Any]] = {"name": (str, None)} if isinstance(described.reader, Mapping) else {}
    else:
        known, named = {}, {name: (hint_of(old), None) for name, old in section.items()}
    value = section.get(key)
    if isinstance(value, Draft) and ("path" in value or (parents, key) == ([], "init")):
        _assign(value, "path", text)
    elif isinstance(value, Draft):
        raise UserError(f"config.{path} is a section; set one of its keys: {', '.join(value)}")
    elif key not in known and key not in named:
        raise UserError(f"config.{path} does not exist; {_elsewhere(config, key) or nearest(key, {**known, **named})}")
    elif described is not None and text in ("None", "auto") and key in described.left_open:
        _assign(section, key, None)
    elif described is not None and text.lower() in described.older.get(key, {}):
        _assign(section, key, described.older[key][text.lower()])
    else:
        hint, default = (known | named)[key]
        if hint == Duration and isinstance(section.get(key, default), str) and DURATION.fullmatch(text):
            hint = str  # "500" in place of "5%" stays text: older versions saved it so, and their runs must not differ
        _assign(section, key, parse_value(text, hint, f"config.{path}"))
    if key == "name" and described is not None and (reader := described.chosen(section)):
        mine = hints(reader, described.injected)
        for other in [other for other in section if other in known and other not in mine]:
            del section[other]  # a key of the function that was chosen before


def _assign(section: Draft, key: str, value: Any) -> None:
    with section.unlocked(), section.ignore_type():
        if isinstance(section.get(key), list):
            del section[key]  # otherwise ConfigDict turns the new tuple into a list
        section[key] = value


def _elsewhere(config: Draft, key: str) -> str:
    """`did you mean config.optim.lr?` for a key that exists in other sections; "" if it exists in none."""
    places = [
        f"config.{name}.{key}" for name, section in config.items() if isinstance(section, Draft) and key in section
    ]
    return f"did you mean {' or '.join(places)}?" if places else ""


def _near_key(section: Any, key: str) -> str:
    return nearest(key, section) if isinstance(section, Draft) else "its parent is not a section"
