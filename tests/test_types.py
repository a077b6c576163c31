"""What a message does with the names that strangers' files hold: it prints, it stays short, and it loses no news."""

import pickle

import pytest

from vit_jax.types import Metric, UserError, counted, itemize, printable, shown


def test_a_message_never_reaches_the_terminal_as_a_command():
    said = str(UserError("\x1b[2J\x07 head\x00/kernel\u202e\r cut\ud800, né日 stays\nnext line"))
    assert said == r"\x1b[2J\x07 head\x00/kernel\u202e\r cut\ud800, né日 stays" + "\nnext line"
    assert printable("plain") == "plain"


def test_a_message_that_grew_out_of_hand_is_cut_and_says_so():
    error = UserError("a" * 60_000_000)
    assert len(str(error)) < 21_000
    assert str(error).endswith("a ... (60,000,000 characters)")
    assert str(UserError("a" * 20_000)) == "a" * 20_000


def test_a_user_error_survives_its_way_between_processes():
    again = pickle.loads(pickle.dumps(UserError("a\x1bb")))
    assert (type(again), str(again)) == (UserError, r"a\x1bb")


def test_a_list_shows_the_first_ten_and_counts_the_others():
    assert itemize(str(i) for i in range(10)).splitlines() == [f"  {i}" for i in range(10)]
    assert itemize(map(str, range(1234))).splitlines()[9:] == ["  9", "  and 1,224 more"]
    assert itemize(["a\nb", "x" * 10**6]) == r"  a\nb" + f"\n  {'x' * 500} ..."


def test_one_is_singular():
    found = [
        counted(1, "image"),
        counted(0, "image"),
        counted(2000, "corrupt image"),
        counted(1, "class"),
        counted(7, "class"),
    ]
    assert found == ["1 image", "0 images", "2,000 corrupt images", "1 class", "7 classes"]


@pytest.mark.parametrize("value", ["x" * 10**6, 10**4000, [[1] * 1000] * 1000, {"a": {"b": "c" * 10**6}}])
def test_a_value_is_shown_in_a_line(value):
    assert len(shown(value)) < 500
    assert shown("vit") == "'vit'"


def test_names_are_printable_and_those_that_are_stay():
    for name in ("train/cat/a b.jpg", "Größe/日本.jpg", "narrow\u3000space", "👩\u200d🔬"):
        assert printable(name) == name
    names = [b"caf\xe9.jpg", b"a\nb\x1b[2J\x00", "\u202egpj.exe".encode()]
    shown = ["caf\\xe9.jpg", "a\\nb\\x1b[2J\\x00", "\\u202egpj.exe"]
    assert [printable(name.decode("utf-8", "surrogateescape")) for name in names] == shown
    assert printable("\ud83d") == "\\ud83d"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("eval/test/top1", ("eval", "test", "top1")),
        ("eval_average/few/shot/5shot", ("eval_average", "few/shot", "5shot")),  # an evaluator's name may hold a slash
        ("train/loss", None),
        ("time/eta_s", None),
        ("evaluation/test/top1", None),
        ("eval/top1", None),
        ("eval//top1", None),
        ("eval/test/", None),
        ("step", None),
        ("", None),
    ],
)
def test_the_name_of_a_metric_is_parsed_as_it_is_printed(text, parts):
    assert Metric.parse(text) == parts
    if parts:
        assert (str(Metric(*parts)), f"{Metric(*parts)}") == (text, text)
