"""A sweep's line in a table: its cells, its means, its difference to another sweep, and notes on its missing tasks.

A task counts in a mean only if all its seeds are done, and a mean is printed only if all its tasks count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from vit_jax.report.collect import Entry, TaskRuns
from vit_jax.report.table import Cell, Head, Line, difference, percent


def task_cell(task: TaskRuns, decimals: int) -> Cell:
    """The cell with a task's score."""
    scores = task.by_seed()
    lacking = "" if task.finished or not scores else f"{len(scores)} of {len(task.seeds)} seeds"
    return percent(scores.values(), decimals, lacking)


def mean_cell(tasks: Sequence[TaskRuns | None], decimals: int) -> Cell:
    """The mean over tasks, with the spread of the seeds' means; empty if a task is missing or unfinished."""
    whole = [task.by_seed() for task in tasks if task is not None and task.finished]
    if not tasks or len(whole) < len(tasks):
        return Cell(decimals=decimals)
    return percent((math.fsum(task[seed] for task in whole) / len(whole) for seed in whole[0]), decimals)


def own_row(entry: Entry) -> Head:
    """A sweep's row."""
    num = len(entry.sweep.seeds)
    return Head(entry.label, "sweep", detail=f"{num} seed{'' if num == 1 else 's'}")


def notes_of(entry: Entry, columns: Sequence[str], groups: Iterable[tuple[str, Sequence[str]]] = ()) -> list[str]:
    """Notes on a sweep's missing tasks in a table, and the means over its finished ones.

    Args:
      entry: the sweep.
      columns: titles of the table's tasks.
      groups: (name of a mean, titles of its tasks).
    """
    by_title = {task.task.title: task for task in entry.tasks}
    strange = [title for title in columns if title not in by_title]
    waiting = [t for t in columns if t in by_title and not by_title[t].task.missing and not by_title[t].final]
    notes = [f"{entry.label}: not in the sweep: {', '.join(strange)}."] if strange else []
    if waiting:
        notes.append(f"{entry.label}: not done yet: {', '.join(waiting)}.")
    for title in columns:
        task = by_title.get(title)
        if task is not None and task.task.missing:
            notes.append(f"{entry.label}: {title} has no data: {task.task.missing}")
        elif task is not None and task.final and not task.finished:
            got = len(task.by_seed())
            diverged = f" (no number from seed {', '.join(map(str, task.diverged))})" if task.diverged else ""
            notes.append(
                f"{entry.label}: {title} is unfinished: {got} of {len(task.seeds)} seeds{diverged}; in no mean."
            )
    for name, titles in groups:
        kept = [by_title[title] for title in titles if title in by_title and by_title[title].finished]
        if kept and len(kept) < len(titles):
            mean = mean_cell(kept, 2).text
            without = ", ".join(title for title in titles if title not in {task.task.title for task in kept})
            notes.append(f"{entry.label}: {name}: mean of {len(kept)} of {len(titles)}: {mean}, without {without}.")
    return notes


def with_differences(lines: Sequence[Line]) -> list[Line]:
    """The sweeps' lines, each but the first followed by its difference to the first."""
    rows: list[Line] = []
    for number, (head, cells) in enumerate(lines):
        rows.append((head, cells))
        if number:
            first, base = lines[0]
            title = f"{head.title} less {first.title}"
            gaps = {key: difference(cell, base[key]) for key, cell in cells.items() if key in base}
            rows.append((Head(title, "difference", head.group, f"to {first.title}, points"), gaps))
    return rows


def spread_note(entries: Sequence[Entry]) -> str:
    """A note that explains the numbers of a table."""
    several = any(len(entry.sweep.seeds) > 1 for entry in entries)
    what = "mean ± standard deviation over seeds" if several else "one seed each"
    return f"Percent, {what}; the best of those compared is bold."


def overall(entry: Entry, titles: Sequence[str]) -> list[TaskRuns | None]:
    """A sweep's tasks by title; None for a title that the sweep lacks."""
    by_title = {task.task.title: task for task in entry.tasks}
    return [by_title.get(title) for title in titles]


def strangers(entry: Entry, titles: Sequence[str]) -> list[str]:
    """Notes that name the tasks without a column among these titles."""
    other = [task.task.title for task in entry.tasks if task.task.title not in titles]
    return (
        [f"{entry.label}: {', '.join(other)}: no column of the table, in no mean; see the tasks below."]
        if other
        else []
    )
