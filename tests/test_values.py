"""Values against type hints: text becomes the value that a hint means, or a message says what was expected."""

import math
from typing import Annotated, Any, Literal

import pytest

from vit_jax.types import Duration, UserError
from vit_jax.values import conforms, describe_hint, hint_of, normalise, parse_value


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("12", int, 12),
        ("-3", int, -3),
        ("3e-4", float, 0.0003),
        ("2", float, 2.0),
        ("2", str, "2"),
        ("'2'", str, "'2'"),  # a shell has taken its quotes away: those that are left are meant
        ("TRUE", bool, True),
        ("0", bool, False),
        ("None", int | None, None),
        ("90 epochs", int | str, "90 epochs"),
        ("500", int | str, 500),
        ("96", tuple[int, int], 96),  # the signature makes it a pair
        ("1, 5", tuple[int, ...], (1, 5)),
        ("*,!head/*", tuple[str, ...], ("*", "!head/*")),
        ("cls", tuple[str, ...], ("cls",)),
        ("(4,6),(8,8)", tuple[tuple[int, int], ...], ((4, 6), (8, 8))),
        ("resnet", Literal["none", "resnet"], "resnet"),
    ],
)
def test_text_becomes_a_value_of_the_hint(text, hint, value):
    found = parse_value(text, hint, "config.x")
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "hint", "expected"),
    [
        ("1.0", int, "an integer"),
        ("True", int, "an integer"),
        ("True", float, "a number"),
        ("1" + "0" * 400, float, "a number"),  # too large for any float
        ("9" * 5000, int, "an integer"),  # more digits than Python reads
        ("yes", bool, "true or false"),
        ("2", bool, "true or false"),
        ("1,2,3", tuple[int, int, int, int], "four integers, 4,6"),
        ("a,b", tuple[float, ...], "numbers with commas, 0.1,0.2,0.3"),
        ("resnet50", Literal["none", "resnet"], "one of 'none', 'resnet'"),
        ("1)", int | None, "an integer or none"),
        ("__import__('os').getcwd()", int, "an integer"),
    ],
)
def test_text_of_another_type_says_what_was_expected_and_what_was_found(text, hint, expected):
    with pytest.raises(UserError) as caught:
        parse_value(text, hint, "config.x")
    assert str(caught.value) == f"config.x={text}: expected {expected}, found {text!r}"


def test_lists_numbers_and_single_values_take_the_form_of_the_hint():
    assert normalise([1, 2], tuple[int, ...]) == (1, 2)
    assert normalise(224, tuple[int, int]) == (224, 224)
    assert normalise(7, tuple[int, ...]) == (7,)
    assert normalise([[1, 2], 3], tuple[tuple[int, int], ...]) == ((1, 2), (3, 3))
    found = normalise((1, 2.5), tuple[float, ...])
    assert (found, {type(x) for x in found}) == ((1.0, 2.5), {float})
    assert normalise(True, float) is True  # and no number: `conforms` refuses it
    assert normalise(10**400, float) == 10**400


def test_a_truth_value_is_no_number_and_a_number_is_no_truth_value():
    assert not conforms(True, int)
    assert not conforms(1, bool)
    assert not conforms(1, float)  # `normalise` comes first
    assert not conforms(True, Literal[0, 1])
    assert conforms(1, Literal[0, 1])
    assert not conforms((1, True), tuple[int, ...])
    assert conforms((1, "a", None), tuple)
    assert conforms(math.pi, Any)
    assert conforms({"a": 1}, dict[str, int])
    assert conforms(3, Annotated[int, "count"])
    assert not conforms([1, 2], tuple[int, ...])


@pytest.mark.parametrize("value", [500, "500", "90 epochs", "1 epoch", " 5 % ", "1.5e3 steps", "0.5%"])
def test_every_spelling_of_a_duration_is_one(value):
    assert conforms(value, Duration)


@pytest.mark.parametrize("value", [True, 0.5, None, "", "epochs", "-5 steps", "5 hours", "90 epochs or so", "1e-3%"])
def test_nothing_else_is_a_duration(value):
    assert not conforms(value, Duration)
    assert describe_hint(Duration) == 'a duration: steps as in 500, or "90 epochs", "5%"'
    assert describe_hint(tuple[tuple[int, int], ...]) == "pairs of integers with commas, (4,6),(8,8)"


def test_an_override_has_the_type_of_what_it_replaces():
    assert hint_of(0.1) is float
    assert hint_of(True) is bool
    assert hint_of(500) == int | str  # or "90 epochs"
    assert hint_of((1, 2)) == tuple[int, ...]
    assert hint_of((1, "a")) is hint_of(()) is tuple
    assert parse_value("1,'a'", hint_of((2, "b")), "config.x") == (1, "a")
