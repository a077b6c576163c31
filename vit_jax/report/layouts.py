"""Scores of sweeps in the layouts of the paper's tables 9, 2 and 5, of few-shot accuracy, of objectives of pre-training, and as a
plain list.

Sweeps with one layout share its tables; from the second on, a row shows the difference to the first. A mean over fewer tasks
than the layout has is not printed: the note under the table gives it and names the missing tasks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from vit_jax.report import paper
from vit_jax.report.collect import Entry, TaskRuns
from vit_jax.report.lines import (
    mean_cell,
    notes_of,
    overall,
    own_row,
    spread_note,
    strangers,
    task_cell,
    with_differences,
)
from vit_jax.report.table import Cell, Head, Line, Table, lay_out, percent

MEAN = "Mean"
SHOTS = re.compile(r"(\d+)shot")


def make_tables(entries: Sequence[Entry]) -> list[Table]:
    """Every table of sweeps that share a layout and a metric."""
    layout = entries[0].sweep.layout
    if layout == "vtab":
        return [_table_9(entries), _table_2_vtab(entries)]
    if layout == "transfer":
        return [_table_2(entries), _table_5(entries), *_others(entries)]
    if layout == "fewshot":
        return [_fewshot(entries)]
    if layout == "objectives":
        return [_objectives(entries)]
    return [_list(entries)]


def _table_9(entries: Sequence[Entry]) -> Table:
    groups = paper.TABLE_9_COLUMNS
    titles = [title for _, names in groups for title in names]
    columns = [(title, Head(title, "task", group)) for group, names in groups for title in names]
    columns += [(f"mean {group}", Head(group, "mean", MEAN)) for group, _ in groups]
    columns.append((MEAN, Head("All 19", "mean", MEAN)))
    own: list[Line] = []
    notes = [spread_note(entries), "The paper's means of groups are computed from its columns; it prints the last."]
    for entry in entries:
        cells = {task.task.title: task_cell(task, 1) for task in entry.tasks}
        cells |= {f"mean {group}": mean_cell(overall(entry, names), 1) for group, names in groups}
        cells[MEAN] = mean_cell(overall(entry, titles), 1)
        own.append((own_row(entry), cells))
        notes += notes_of(entry, titles, [*groups, ("all tasks", titles)])
        notes += strangers(entry, titles)
    references: list[Line] = []
    for model, (*parts, mean) in paper.TABLE_9.items():
        cells = {}
        for (group, names), figures in zip(groups, parts, strict=True):
            cells |= {name: Cell(figure) for name, figure in zip(names, figures, strict=True)}
            cells[f"mean {group}"] = Cell(math.fsum(figures) / len(figures))
        cells[MEAN] = Cell(mean)
        references.append((Head(model, "reference", detail="table 9"), cells))
    return _table("table9", "VTAB-1k, task by task (the paper's table 9)", own, references, columns, notes)


def _table_2_vtab(entries: Sequence[Entry]) -> Table:
    titles = [title for _, names in paper.TABLE_9_COLUMNS for title in names]
    own = [(own_row(entry), {MEAN: mean_cell(overall(entry, titles), 2)}) for entry in entries]
    references: list[Line] = [
        (Head(model, "reference", detail="table 2"), {MEAN: Cell(figure, decimals=2)})
        for model, figure in zip(paper.TABLE_2_MODELS, paper.TABLE_2[paper.VTAB_ROW], strict=True)
    ]
    columns = [(MEAN, Head(paper.VTAB_ROW, "mean"))]
    notes = [note for entry in entries for note in notes_of(entry, (), [("all tasks", titles)])]
    caption = "VTAB's row of the paper's table 2"
    return _table("table2", caption, own, references, columns, notes).turned("data set")


def _by_row(entry: Entry) -> dict[str, TaskRuns]:
    """{data set in the paper's tables: task}."""
    rows = ((paper.row_of(task.task.title, task.task.dataset), task) for task in entry.tasks)
    return {row: task for row, task in rows if row}


def _table_2(entries: Sequence[Entry]) -> Table:
    own: list[Line] = []
    notes = [spread_note(entries)]
    titles = [title for title in paper.TABLE_2 if title != paper.VTAB_ROW]
    for entry in entries:
        by_row = _by_row(entry)
        own.append((own_row(entry), {title: task_cell(task, 2) for title, task in by_row.items()}))
        names = [by_row[title].task.title if title in by_row else title for title in titles]
        notes += notes_of(entry, names)
    references: list[Line] = [
        (
            Head(model, "reference", detail="table 2"),
            {title: Cell(paper.TABLE_2[title][number], decimals=2) for title in titles},
        )
        for number, model in enumerate(paper.TABLE_2_MODELS)
    ]
    columns = [(title, Head(title, "task")) for title in titles]
    caption = "Transfer (the paper's table 2; ImageNet there at 512 and 518 pixels, with averaged weights)"
    return _table("table2", caption, own, references, columns, notes).turned("data set")


def _table_5(entries: Sequence[Entry]) -> Table:
    columns = [
        (f"{source}: {title}", Head(title, "task", f"paper pre-trained on {source}"))
        for source, sets in paper.TABLE_5.items()
        for title in sets
    ]
    own: list[Line] = []
    for entry in entries:
        cells = {title: task_cell(task, 2) for title, task in _by_row(entry).items()}
        repeated = {f"{source}: {t}": cell for source in paper.TABLE_5 for t, cell in cells.items()}
        own.append((own_row(entry), repeated))
    references: list[Line] = [
        (
            Head(model, "reference", detail="table 5"),
            {
                f"{source}: {title}": Cell(figures[number], decimals=2)
                for source, sets in paper.TABLE_5.items()
                for title, figures in sets.items()
            },
        )
        for number, model in enumerate(paper.TABLE_5_MODELS)
    ]
    caption = "Transfer beside each pre-training set (the paper's table 5, at 384 pixels)"
    notes = ["A sweep's own figures are the same in each block."]
    return _table("table5", caption, own, references, columns, notes).turned("data set")


def _others(entries: Sequence[Entry]) -> list[Table]:
    """A table of a transfer sweep's tasks that are not in the paper's tables."""
    titles = dict.fromkeys(
        task.task.title
        for entry in entries
        for task in entry.tasks
        if not paper.row_of(task.task.title, task.task.dataset)
    )
    return (
        [_plain("table-others", "Tasks that the paper's tables do not have", entries, list(titles))] if titles else []
    )


def _list(entries: Sequence[Entry]) -> Table:
    titles = dict.fromkeys(task.task.title for entry in entries for task in entry.tasks)
    return _plain("table-list", f"Results ({entries[0].sweep.metric})", entries, list(titles))


def _objectives(entries: Sequence[Entry]) -> Table:
    """A row per checkpoint and a column per way of judging it; last, the paper's own ImageNet models."""
    titles = list(dict.fromkeys(task.task.title for entry in entries for task in entry.tasks))
    published = {title: Cell(figure, decimals=2) for title, figure in paper.OBJECTIVES.items() if title in titles}
    columns = [(str(n), Head(entry.label, "task", detail=own_row(entry).detail)) for n, entry in enumerate(entries)]
    lines: list[Line] = []
    for title in titles:
        judged = {str(n): overall(entry, [title])[0] for n, entry in enumerate(entries)}
        cells = {key: task_cell(task, 2) for key, task in judged.items() if task is not None}
        lines.append((Head(title, "sweep"), cells | ({"paper": published[title]} if title in published else {})))
    if published:
        columns.append(("paper", Head("ViT-B/16, all of ImageNet", "reference", detail="B.1.2 and table 5")))
    notes = [spread_note(entries)] + [
        note for entry in entries for note in notes_of(entry, [t.task.title for t in entry.tasks])
    ]
    heads, rows = tuple(head for _, head in columns), tuple(head for head, _ in lines)
    grid = tuple(lay_out(lines, columns))
    return Table("table-objectives", "Objectives of pre-training", "objective", heads, rows, grid, tuple(notes))


def _plain(name: str, caption: str, entries: Sequence[Entry], titles: list[str]) -> Table:
    group_of = {task.task.title: task.task.group for entry in entries for task in entry.tasks}
    groups = {group: [t for t in titles if group_of[t] == group] for group in dict.fromkeys(group_of.values()) if group}
    columns = [(title, Head(title, "task", group_of[title].capitalize())) for title in titles]
    columns += [(f"mean {group}", Head(group.capitalize(), "mean", MEAN)) for group in groups]
    number = max(entry.sweep.tasks_in_mean for entry in entries)
    if number:
        columns.append((MEAN, Head(f"All {number}", "mean", MEAN)))
    own: list[Line] = []
    notes = [spread_note(entries)]
    for entry in entries:
        cells = {task.task.title: task_cell(task, 2) for task in entry.tasks}
        cells |= {f"mean {group}": mean_cell(overall(entry, names), 2) for group, names in groups.items()}
        if number and len(titles) >= number:
            cells[MEAN] = mean_cell(overall(entry, titles), 2)
        own.append((own_row(entry), cells))
        means = [*groups.items(), *([("all tasks", titles)] if number else [])]
        notes += notes_of(entry, titles, means)
    return _table(name, caption, own, [], columns, notes)


def _fewshot(entries: Sequence[Entry]) -> Table:
    """A table with a row per data set and a column per number of examples per class."""
    shots = sorted({shot for entry in entries for task in entry.tasks for shot in _shots(task)})
    shots = shots or sorted({int(match[1]) for e in entries if (match := SHOTS.fullmatch(e.sweep.metric))})
    columns = [(str(shot), Head(f"{shot}-shot", "task")) for shot in shots]
    rows: list[Head] = []
    grid: list[tuple[Cell, ...]] = []
    for title in dict.fromkeys(task.task.title for entry in entries for task in entry.tasks):
        own: list[Line] = []
        references: list[Line] = []
        for entry in entries:
            (task,) = overall(entry, [title])
            if task is not None:
                cells = {str(shot): _shot_cell(task, shot) for shot in shots}
                own.append((own_row(entry)._replace(group=title), cells))
                if paper.row_of(title, task.task.dataset) == paper.TABLE_8_SET and not references:
                    references = [
                        (Head(m, "reference", title, "table 8"), {str(paper.TABLE_8_SHOTS): Cell(v, decimals=2)})
                        for m, v in paper.TABLE_8.items()
                    ]
        lines = [*with_differences(own), *references]
        rows += [head for head, _ in lines]
        grid += lay_out(lines, columns)
    notes = ["Percent, linear classifier in closed form on frozen features; bold: best of its column and data set."]
    if any(_draws(task, shot) for entry in entries for task in entry.tasks for shot in shots):
        notes.append("± is the standard deviation over draws of the examples where a sweep has one seed.")
    for entry in entries:
        notes += notes_of(entry, [task.task.title for task in entry.tasks])
    heads = tuple(head for _, head in columns)
    return Table("table-fewshot", "Few-shot accuracy", "model", heads, tuple(rows), tuple(grid), tuple(notes))


def _shots(task: TaskRuns) -> set[int]:
    names = (name for run in task.final for name in (run.result.average_scores or run.result.scores))
    return {int(match[1]) for name in names if (match := SHOTS.fullmatch(name))}


def _draws(task: TaskRuns, shot: int) -> list[float]:
    """Scores of the single draws in a sweep with one seed."""
    if len(task.seeds) != 1 or not task.final:
        return []
    scores = task.final[0].result.average_scores or task.final[0].result.scores
    return [value for name, value in sorted(scores.items()) if name.startswith(f"{shot}shot_seed")]


def _shot_cell(task: TaskRuns, shot: int) -> Cell:
    if shot not in _shots(task):
        return Cell(decimals=2)
    scores = task.by_seed(f"{shot}shot")
    cell = percent(scores.values(), 2, "" if task.finished else f"{len(scores)} of {len(task.seeds)} seeds")
    draws = percent(_draws(task, shot), 2)
    return cell._replace(std=draws.std) if cell.num == 1 and draws.std is not None else cell


def _table(
    name: str,
    caption: str,
    own: Sequence[Line],
    references: Sequence[Line],
    columns: Sequence[tuple[str, Head]],
    notes: Sequence[str],
) -> Table:
    lines = [*with_differences(own), *references]
    grid = lay_out(lines, columns)
    return Table(
        name, caption, "model", tuple(c for _, c in columns), tuple(h for h, _ in lines), tuple(grid), tuple(notes)
    )
