"""Tables as text for other programs: CSV with every digit, Markdown and LaTeX rounded as on the page."""

from __future__ import annotations

import csv
import io

from vit_jax.report.table import NOTHING, Cell, Head, Table

TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "†": r"$^\dagger$",
    "−": "$-$",  # noqa: RUF001
    "–": "--",  # noqa: RUF001
}
MANY_COLUMNS = 8  # from this many on, LaTeX sets column names upright, as the paper's table 9 does


def to_csv(table: Table) -> str:
    """The table with unrounded numbers, followed by the same columns with ` std`, then with ` seeds`.

    A cell is empty if it has no number, or if seeds are missing (the column `unfinished` names those cells).
    """
    names = [_full(head) for head in table.columns]
    header = ["group", table.corner, "kind", *names]
    header += [f"{name} std" for name in names] + [f"{name} seeds" for name in names] + ["unfinished"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(_plain, header))
    for head, line in zip(table.rows, table.cells, strict=True):
        kind = head.kind
        whole = [cell if not cell.unfinished else Cell() for cell in line]
        lacking = [f"{n}: {cell.unfinished}" for n, cell in zip(names, line, strict=True) if cell.unfinished]
        row = [_plain(head.group), _plain(head.title), kind]
        row += [_digits(cell.value) for cell in whole]
        row += [_digits(cell.std) for cell in whole]
        row += [str(cell.num) if cell.num else "" for cell in whole]
        writer.writerow([*row, _plain("; ".join(lacking))])
    return out.getvalue()


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown, with the best numbers bold and the notes below."""
    lines = [f"**{_md(table.caption)}**", ""]
    lines.append("| " + " | ".join([table.corner, *(_md(_full(head)) for head in table.columns)]) + " |")
    lines.append("|:---|" + "---:|" * len(table.columns))
    for group, rows in table.row_groups:
        if group:
            lines.append(f"| *{_md(group)}* |" + " |" * len(table.columns))
        for head, line in rows:
            texts = (f"**{cell.text}**" if cell.best else cell.text for cell in line)
            lines.append("| " + " | ".join([_md(head.title), *texts]) + " |")
    lines += ["", *(f"- {_md(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def to_latex(table: Table) -> str:
    """A `table*` with booktabs rules (packages: booktabs, graphicx), with the best numbers bold and the notes as comments."""
    upright = len(table.columns) >= MANY_COLUMNS
    head = [rf"\rotatebox{{90}}{{{_tex(c.title)}}}" if upright else _tex(c.title) for c in table.columns]
    # TeX ends a comment at other characters than a newline, too.
    lines = [*(f"% {' '.join(note.split())}" for note in table.notes), r"\begin{table*}", r"\centering"]
    lines += [rf"\caption{{{_tex(table.caption)}}}", rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\toprule"]
    if any(group for group, _ in table.column_groups):
        spans = (rf"\multicolumn{{{span}}}{{c}}{{{_tex(group)}}}" for group, span in table.column_groups)
        lines.append(" & ".join(["", *spans]) + r" \\")
    lines += [" & ".join([_tex(table.corner), *head]) + r" \\"]
    for group, rows in table.row_groups:
        lines.append(r"\midrule")
        if group:
            lines.append(rf"\multicolumn{{{len(table.columns) + 1}}}{{l}}{{\emph{{{_tex(group)}}}}} \\")
        before: Head | None = None
        for row, line in rows:
            if before is not None and row.kind == "reference" and before.kind != "reference":
                lines.append(r"\midrule")
            texts = (rf"\textbf{{{_tex(cell.text)}}}" if cell.best else _tex(cell.text) for cell in line)
            lines.append(" & ".join([_tex(row.title), *texts]) + r" \\")
            before = row
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table*}"]
    return "\n".join(lines) + "\n"


FORMATS = {"csv": to_csv, "md": to_markdown, "tex": to_latex}


def _full(head: Head) -> str:
    """A column's name on one line; the name of a mean says so."""
    return f"{head.group}: {head.title}" if head.kind == "mean" and head.group else head.title


def _plain(text: str) -> str:
    """A name on one line that spreadsheets read as text: an apostrophe precedes a name that begins like a formula."""
    text = " ".join(text.split())
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def _md(text: str) -> str:
    """Escapes text so that Markdown prints it unchanged."""
    for letter in "\\`*_[]<>|#":
        text = text.replace(letter, "\\" + letter)
    return " ".join(text.split()) or NOTHING


def _tex(text: str) -> str:
    return "".join(TEX.get(letter, letter) for letter in " ".join(text.split()))
