"""The page of one or more sweeps and the files of its tables, made from files on disk: same files, same bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vit_jax.report.charts import Chart, compute_chart
from vit_jax.report.collect import Entry, collect
from vit_jax.report.formats import FORMATS
from vit_jax.report.layouts import make_tables
from vit_jax.report.provenance import Fact, facts, warnings
from vit_jax.report.render import PAGE, Progress, fill, write_files
from vit_jax.report.runs import is_run, write_runs
from vit_jax.report.table import Table
from vit_jax.report.tasks import TaskView, href, task_views
from vit_jax.types import UserError


class Section(NamedTuple):
    """Sweeps that share a table."""

    anchor: str
    title: str
    entries: tuple[tuple[int, Entry], ...]
    tables: tuple[Table, ...]
    compute: Chart | None
    tasks: tuple[TaskView, ...]
    facts: tuple[Fact, ...]
    warnings: tuple[str, ...]


def write_report(folders: Sequence[Path], to: Path, *, refresh_s: int = 0) -> Progress:
    """Writes the page and its tables; each file is replaced as a whole, and only if it changes.

    Args:
      folders: the folders of sweeps, in the order of their rows; or the workdirs of runs.
      to: the page's folder; created if missing.
      refresh_s: an unfinished page reloads itself this often; 0 for never.

    Returns:
      How far the sweeps or runs are.

    Raises:
      UserError: `collect` found a mistake, or `to` cannot be written to. Nothing has been changed then.
    """
    if any(map(is_run, folders)):
        if strangers := [str(folder) for folder in folders if not is_run(folder)]:
            raise UserError(f"{', '.join(strangers)}: no run, but others are; give runs or sweeps, not both")
        return write_runs(folders, to, refresh_s=refresh_s)
    entries = collect(folders)
    files, progress = render(entries, to, refresh_s=refresh_s)
    write_files(to, files)
    return progress


def render(entries: Sequence[Entry], to: Path, *, refresh_s: int = 0) -> tuple[dict[str, str], Progress]:
    """{file name: text} of a page in the folder `to`, the page itself last; and how far the sweeps are."""
    sections = _sections(entries, to)
    files = {
        f"{table.name}.{ending}": write(table)
        for section in sections
        for table in section.tables
        for ending, write in FORMATS.items()
    }
    damaged = tuple(text for entry in entries for text in entry.damaged)
    progress = Progress(sum(e.done for e in entries), sum(e.expected for e in entries), damaged)
    view: dict[str, Any] = {
        "title": _title(entries),
        "entries": entries,
        "sections": sections,
        "progress": progress,
        "refresh_s": 0 if progress.finished else refresh_s,
        "sweep_links": [href(entry.folder / "sweep.json", to) for entry in entries],
        "tint": tint,
        "formats": tuple(FORMATS),
    }
    return files | {PAGE: fill("page.html", view)}, progress


def _title(entries: Sequence[Entry]) -> str:
    titles = list(dict.fromkeys(entry.sweep.title for entry in entries))
    return titles[0] if len(titles) == 1 else f"{len(entries)} sweeps side by side"


def _sections(entries: Sequence[Entry], to: Path) -> list[Section]:
    together: dict[tuple[str, str], list[tuple[int, Entry]]] = {}
    for place, entry in enumerate(entries):
        # Ways of judging the same checkpoints share a table, whatever their metrics are called.
        metric = "" if entry.sweep.layout == "objectives" else entry.sweep.metric
        together.setdefault((entry.sweep.layout, metric), []).append((place, entry))
    sections: list[Section] = []
    for (_, metric), members in together.items():
        anchor, own = f"s{len(sections)}", [entry for _, entry in members]
        tables = _told_apart(make_tables(own), metric, [t.name for s in sections for t in s.tables])
        titles = dict.fromkeys(entry.sweep.title for entry in own)
        sections.append(
            Section(
                anchor,
                "; ".join(titles),
                tuple(members),
                tables,
                compute_chart(f"{anchor}-compute", members),
                tuple(task_views(anchor, members, to)),
                tuple(facts(own)),
                tuple(warnings(own)),
            )
        )
    return sections


def _told_apart(tables: Iterable[Table], metric: str, taken: Sequence[str]) -> tuple[Table, ...]:
    """Renames tables whose file names another section already uses."""
    plain = "".join(letter if letter.isalnum() else "-" for letter in metric)
    return tuple(dataclasses.replace(t, name=f"{t.name}-{plain}") if t.name in taken else t for t in tables)


def tint(share: float) -> str:
    """The strength of colour in a cell of a confusion matrix, in percent."""
    return f"{100 * share**0.6:.0f}"
