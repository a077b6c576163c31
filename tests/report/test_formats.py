"""The files beside the page, read back by programs that know nothing of the table."""

import csv
import io
import re

import pytest
from folders import (
    tables,
    write_vtab,
)

from vit_jax.report.formats import to_csv, to_latex, to_markdown
from vit_jax.report.table import Cell, Head, Table


def unmark(text):
    """A Markdown or LaTeX cell as the page prints it."""
    text = text.strip().removesuffix(r"\\").strip().replace(r"$\pm$", "±").replace(r"$^\dagger$", "†")
    text = text.replace("$-$", "−").replace(r"\%", "%").replace("--", "–")  # noqa: RUF001
    text = re.sub(r"^\*\*(.*)\*\*$|^\\textbf\{(.*)\}$", lambda found: found[1] or found[2], text)
    return re.sub(r"\\([\\`*_\[\]<>|#&$])", r"\1", text)


def two_sweeps(tmp_path):
    write_vtab(tmp_path / "a", label="A_1 & <b> | 50%")
    write_vtab(tmp_path / "b", label="B", leave_out={(5, 1), 6})
    return tables(tmp_path / "a", tmp_path / "b")


def test_csv_holds_the_numbers_to_the_last_digit(tmp_path):
    for table in two_sweeps(tmp_path).values():
        lines = list(csv.DictReader(io.StringIO(to_csv(table))))
        assert [line[table.corner] for line in lines] == [head.title for head in table.rows]
        for line, cells in zip(lines, table.cells, strict=True):
            for head, found in zip(table.columns, cells, strict=True):
                name = f"{head.group}: {head.title}" if head.kind == "mean" and head.group else head.title
                if found.value is None or found.unfinished:
                    assert line[name] == line[f"{name} std"] == line[f"{name} seeds"] == ""
                    continue
                assert float(line[name]) == pytest.approx(found.value, abs=1e-7)
                assert line[f"{name} seeds"] == (str(found.num) if found.num else "")
                if found.std is not None:
                    assert float(line[f"{name} std"]) == pytest.approx(found.std, abs=1e-7)
    (unfinished,) = [
        line["unfinished"] for line in csv.DictReader(io.StringIO(to_csv(two_tables(tmp_path)))) if line["unfinished"]
    ]
    assert unfinished == "Sun397: 2 of 3 seeds"


def two_tables(tmp_path):
    return tables(tmp_path / "a", tmp_path / "b")["table9"]


def test_markdown_and_latex_say_what_the_page_says(tmp_path):
    for table in two_sweeps(tmp_path).values():
        expected = [[head.title, *(c.text for c in cells)] for head, cells in zip(table.rows, table.cells, strict=True)]
        rows = [line.strip("|") for line in to_markdown(table).splitlines() if line.startswith("| ")]
        cells = [[unmark(part) for part in re.split(r"(?<!\\)\|", row)] for row in rows]
        assert [row for row in cells[1:] if any(row[1:])] == expected
        body = [line for line in to_latex(table).splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
        assert [[unmark(part) for part in re.split(r"(?<!\\)&", line)] for line in body[1:]] == expected


def test_the_best_number_is_bold_in_both(tmp_path):
    table = two_sweeps(tmp_path)["table9"]
    assert "**95.4**" in to_markdown(table)
    assert r"\textbf{95.4}" in to_latex(table)
    assert "**90.8**" not in to_markdown(table)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r@", " \n-"])
def test_names_that_a_spreadsheet_would_run_are_texts_in_csv_and_stay_on_their_line(start):
    odd = f'{start}HYPERLINK("a",1)\r\n2'
    head = Head(odd, "sweep", group=odd)
    table = Table(
        "t", odd, odd, (head,), (head,), ((Cell(-1.25, unfinished=""),),), notes=(f"{odd}\r\\input{{x}}\x85y",)
    )
    text = to_csv(table)
    assert text.count("\n") == 2
    assert "\r" not in text
    header, row = csv.reader(io.StringIO(text))
    safe = "'" + start.strip() + 'HYPERLINK("a",1) 2'
    assert header == ["group", safe, "kind", safe, f"{safe} std", f"{safe} seeds", "unfinished"]
    assert row == [safe, safe, "sweep", "-1.25", "", "", ""]  # a number is a number
    lines = to_latex(table).split("\n")
    assert [line for line in lines if "input" in line] == [lines[0]]
    assert lines[0].startswith("% ")
    assert not {"\r", "\x85", "\x0b", "\x0c"} & set(to_latex(table))
