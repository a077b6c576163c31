"""Values of config keys checked against type hints: parsed from text, normalised, checked, described in messages."""

from __future__ import annotations

import ast
import re
import types
import typing
from typing import Any

from vit_jax.types import Duration, UserError

# Types in words, for messages: for one value, and for several with examples.
WORDS: dict[Any, str] = {int: "an integer", float: "a number", bool: "true or false", str: "text", type(None): "none"}
PLURAL = {
    int: ("integers", "1,5,10", "4,6"),
    float: ("numbers", "0.1,0.2,0.3", "0.1,0.9"),
    str: ("words", "a,b,c", "a,b"),
    tuple[int, int]: ("pairs of integers", "(4,6),(8,8)", "(4,6),(8,8)"),
}
COUNTS = ("no", "one", "two", "three", "four")
DURATION = re.compile(r"\s*(\d+\.?\d*(?:e\d+)?)\s*(steps?|epochs?|%)?\s*")


def hint_of(value: Any) -> Any:
    """The type that an override must have, inferred from the value it replaces; the signature is checked afterwards."""
    if isinstance(value, tuple) and value and len({type(v) for v in value}) == 1:
        return tuple[type(value[0]), ...]  # type: ignore[misc]
    return int | str if type(value) is int else type(value)  # an int may be replaced by text: 500 by "90 epochs"


def parse_value(text: str, hint: Any, path: str) -> Any:
    """Parses text as a value of the hinted type."""
    if hint is str:
        return text
    if hint is bool and text.lower() in ("true", "false", "1", "0"):
        return text.lower() in ("true", "1")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = tuple(text.split(",")) if hint == tuple[str, ...] and text else text
    normal = normalise(value, hint)
    if not conforms(normal, hint):
        raise UserError(f"{path}={text}: expected {describe_hint(hint)}, found {text!r}")
    return value if typing.get_origin(hint) is tuple else normal  # the signature decides a tuple's length


def normalise(value: Any, hint: Any) -> Any:
    """Brings a value to the form that a hint requires: lists become tuples, 224 becomes (224, 224) where a pair is expected."""
    if isinstance(value, list):
        value = tuple(value)
    if hint is float and type(value) is int and abs(value) < 10**300:  # a larger int is no float: reported as such
        return float(value)
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)
        if not isinstance(value, tuple):
            value = (value,) * (1 if inner[-1] is Ellipsis else len(inner))
        if inner[-1] is Ellipsis:
            return tuple(normalise(v, inner[0]) for v in value)
        return tuple(normalise(v, inner[min(i, len(inner) - 1)]) for i, v in enumerate(value))
    return value


def conforms(value: Any, hint: Any) -> bool:
    """Whether a normalised value is of the hinted type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if hint == Duration:
        return type(value) in (int, str) and bool(DURATION.fullmatch(str(value)))
    if origin is typing.Annotated:
        return conforms(value, inner[0])
    if origin is typing.Literal:
        return value in inner and type(value) in {type(i) for i in inner}
    if origin in (typing.Union, types.UnionType):
        return any(conforms(value, i) for i in inner)
    if origin is tuple or hint is tuple:
        if not isinstance(value, tuple):
            return False
        if not inner:
            return True
        if inner[-1] is Ellipsis:
            return all(conforms(v, inner[0]) for v in value)
        return len(value) == len(inner) and all(conforms(v, i) for v, i in zip(value, inner, strict=True))
    if hint in (int, float):
        return type(value) is hint
    return isinstance(value, origin or hint)


def describe_hint(hint: Any) -> str:
    """A hint in words, for messages."""
    if hint == Duration:
        return 'a duration: steps as in 500, or "90 epochs", "5%"'
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return describe_hint(inner[0])
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, inner))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(describe_hint, inner))
    if origin is tuple and inner and (known := PLURAL.get(inner[0])) and len({*inner, Ellipsis}) == 2:
        return (
            f"{known[0]} with commas, {known[1]}"
            if Ellipsis in inner
            else f"{COUNTS[len(inner)]} {known[0]}, {known[2]}"
        )
    if origin is tuple or hint is tuple:
        return "values with commas"
    return WORDS.get(hint, getattr(hint, "__name__", str(hint)))
