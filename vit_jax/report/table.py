"""A table as numbers: rows, columns, cells and the best of each column; cells are formatted the same in every file format."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

Kind = Literal["sweep", "reference", "difference", "task", "mean"]
NOTHING = "–"  # noqa: RUF001  # an en dash, as the paper has it
DAGGER = "†"


class Head(NamedTuple):
    """A row's or a column's name; `detail` is printed small, `kind` decides its style."""

    title: str
    kind: Kind
    group: str = ""
    detail: str = ""


class Cell(NamedTuple):
    """A number in percent, or a difference in points.

    Args:
      value: None for an empty cell.
      std: deviation over seeds; None with fewer than two.
      num: number of seeds; 0 for the paper's numbers.
      unfinished: finished and requested seeds; "" if all are done. An unfinished cell is in no mean and never the best.
      best: whether it is the best of the cells it is compared with, at the decimals shown.
      decimals: as the paper prints the table.
      signed: whether it is a difference.
    """

    value: float | None = None
    std: float | None = None
    num: int = 0
    unfinished: str = ""
    best: bool = False
    decimals: int = 1
    signed: bool = False

    @property
    def number(self) -> str:
        """The value alone."""
        if self.value is None:
            return NOTHING
        text = f"{self.value:{'+' if self.signed else ''}.{self.decimals}f}"
        return text.replace("-", "−")  # noqa: RUF001  # a minus sign as wide as the plus

    @property
    def spread(self) -> str:
        """`± 0.3`, or ""."""
        return "" if self.std is None else f"± {self.std:.{self.decimals}f}"

    @property
    def text(self) -> str:
        """The whole cell: `85.5 ± 0.3`, with a dagger if seeds are missing."""
        return " ".join(part for part in (self.number, self.spread) if part) + (DAGGER if self.unfinished else "")


EMPTY = Cell()


@dataclasses.dataclass(frozen=True)
class Table:
    """One table.

    Args:
      name: name of its files.
      caption: one line.
      corner: what the rows list.
      columns, rows: their names; equal neighbouring groups share a heading.
      cells: rows of cells.
      notes: notes that readers of the table need.
    """

    name: str
    caption: str
    corner: str
    columns: tuple[Head, ...]
    rows: tuple[Head, ...]
    cells: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert len(self.cells) == len(self.rows)
        assert all(len(line) == len(self.columns) for line in self.cells)

    def turned(self, corner: str) -> Table:
        """The table with rows and columns exchanged."""
        cells = tuple(zip(*self.cells, strict=True))
        return dataclasses.replace(self, corner=corner, columns=self.rows, rows=self.columns, cells=cells)

    @property
    def column_groups(self) -> list[tuple[str, int]]:
        """(group, number of columns that it spans)."""
        groups: list[tuple[str, int]] = []
        for head in self.columns:
            if groups and groups[-1][0] == head.group:
                groups[-1] = (head.group, groups[-1][1] + 1)
            else:
                groups.append((head.group, 1))
        return groups

    @property
    def row_groups(self) -> list[tuple[str, list[tuple[Head, tuple[Cell, ...]]]]]:
        """(group, its rows), in order."""
        groups: list[tuple[str, list[tuple[Head, tuple[Cell, ...]]]]] = []
        for head, line in zip(self.rows, self.cells, strict=True):
            if not groups or groups[-1][0] != head.group:
                groups.append((head.group, []))
            groups[-1][1].append((head, line))
        return groups


def percent(values: Iterable[float], decimals: int, unfinished: str = "") -> Cell:
    """A cell from fractions, one per seed."""
    percents = [100 * value for value in values]
    if not percents:
        return Cell(decimals=decimals, unfinished=unfinished)
    mean = math.fsum(percents) / len(percents)
    std = math.sqrt(math.fsum((v - mean) ** 2 for v in percents) / (len(percents) - 1)) if len(percents) > 1 else None
    return Cell(mean, std, len(percents), unfinished, decimals=decimals)


def difference(cell: Cell, base: Cell) -> Cell:
    """The difference of two cells in points; empty if either is missing or unfinished."""
    if cell.value is None or base.value is None or cell.unfinished or base.unfinished:
        return Cell(decimals=cell.decimals, signed=True)
    return Cell(cell.value - base.value, decimals=cell.decimals, signed=True)


Line = tuple[Head, Mapping[str, Cell]]


def lay_out(lines: Sequence[Line], columns: Sequence[tuple[str, Head]]) -> list[tuple[Cell, ...]]:
    """Cells by line, with the best finished cell of each column marked; differences do not compete.

    Args:
      lines: (row, {column's key: cell}).
      columns: (key, column), in order.
    """
    best: dict[str, str] = {}
    for key, _ in columns:
        rivals = [
            cells[key] for head, cells in lines if head.kind in ("sweep", "reference") and _competes(cells.get(key))
        ]
        if len(rivals) > 1:
            best[key] = max(rivals, key=lambda cell: cell.value or 0.0).number
    grid = []
    for head, cells in lines:
        marked = []
        for key, _ in columns:
            cell = cells.get(key, EMPTY)
            wins = head.kind in ("sweep", "reference") and _competes(cell) and cell.number == best.get(key)
            marked.append(cell._replace(best=wins))
        grid.append(tuple(marked))
    return grid


def _competes(cell: Cell | None) -> bool:
    return cell is not None and cell.value is not None and not cell.unfinished
