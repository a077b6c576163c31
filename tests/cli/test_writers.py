"""The forms of `vit_jax predict`: each by hand."""

import csv
import io
from types import SimpleNamespace

import pytest

from vit_jax.cli.writers import WRITERS
from vit_jax.predict import Prediction

ROWS = [
    Prediction("a,b.jpg", (("[red]cat", 0.75), ("dog", 0.2))),
    Prediction("c\n.jpg", (("dog", 0.5), ("[red]cat", 0.25))),
]


def written(form, capsys, target="ClassId"):
    writer = WRITERS[form](SimpleNamespace(classes=("[red]cat", "dog", "eel"), target=target), 2)
    for row in ROWS:
        writer.row(row)
    writer.end()
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("lines", "a,b.jpg: [red]cat 75.0%, dog 20.0%\nc\\n.jpg: dog 50.0%, [red]cat 25.0%\n"),
        (
            "json",
            '{"file": "a,b.jpg", "classes": [["[red]cat", 0.75], ["dog", 0.2]]}\n'
            '{"file": "c\\n.jpg", "classes": [["dog", 0.5], ["[red]cat", 0.25]]}\n',
        ),
        (
            "csv",
            "file,class_1,probability_1,class_2,probability_2\n"
            '"a,b.jpg",[red]cat,0.7500,dog,0.2000\nc\\n.jpg,dog,0.5000,[red]cat,0.2500\n',
        ),
    ],
)
def test_each_image_is_a_line(form, text, capsys):
    assert written(form, capsys) == text


def test_a_table_shows_names_as_they_are(capsys):
    out = written("table", capsys)
    head, *_ = (line for line in out.splitlines() if "image" in line)
    assert "#1" in head
    assert "[red]cat 75.0%" in out
    assert "dog 50.0%" in out


def test_numbers_have_a_column_each(capsys):
    rows = list(csv.reader(io.StringIO(written("csv", capsys, "Values"))))
    assert rows[:2] == [["file", "[red]cat", "dog", "eel"], ["a,b.jpg", "0.75", "0.2"]]
