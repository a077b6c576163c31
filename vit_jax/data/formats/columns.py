"""Files whose labels are sets of classes or numbers, from the columns of a list (`data.formats.lists`)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_jax.data.formats.folders import FolderSource
from vit_jax.targets import ClassSet, Values
from vit_jax.types import DatasetSpec, UserError, itemize, printable

SEPARATOR = ";"  # between the labels of an image
VALUE = "value:"  # before the name of a column of numbers


class ColumnsSource(FolderSource):
    """Files with labels of any kind.

    Args:
      spec, root, paths: see `FolderSource`.
      items: the label of each file.
    """

    def __init__(self, spec: DatasetSpec, root: str, paths: list[str], items: Sequence[Any]):
        super().__init__(spec, root, paths, np.zeros(len(paths), np.int32))
        self._items = list(items)

    def read(self, index: int) -> tuple[bytes, Any, str]:
        """See `FolderSource`."""
        data, _, name = super().read(index)
        return data, self._items[index], name

    def part(self, start: int, stop: int) -> ColumnsSource:
        """Examples `start` to `stop` (excluded) alone."""
        spec = self.spec._replace(num_examples=len(self._paths[start:stop]))
        return ColumnsSource(spec, self.folder, self._paths[start:stop], self._items[start:stop])

    def fingerprint(self) -> bytes:
        """Hash of all paths and labels."""
        return hashlib.sha256(super().fingerprint() + repr(self._items).encode()).digest()


def is_special(header: Sequence[str]) -> bool:
    """Whether the fields of a list's first line, `path,labels` or `path,value:AGE,value:SIZE`, begin a list of this kind."""
    return header[0] == "path" and (list(header[1:2]) == ["labels"] or _is_value(header))


def _is_value(header: Sequence[str]) -> bool:
    return len(header) > 1 and header[1].startswith(VALUE)


def count_columns(header: Sequence[str]) -> int:
    """Fields of a line between its path and its split."""
    return sum(name.startswith(VALUE) for name in header) if _is_value(header) else 1


def read_columns(header: Sequence[str], texts: Sequence[str], place: str) -> tuple[Any, tuple[str, ...], list[Any]]:
    """The labels of a list.

    Args:
      header: the fields of its first line.
      texts: for each image, its columns joined by SEPARATOR.
      place: the list, for messages.

    Returns:
      (target, names of the classes or columns, label of each image).

    Raises:
      UserError: a number that is none, or no label at all.
    """
    if _is_value(header):
        names = tuple(printable(name.removeprefix(VALUE)) for name in header if name.startswith(VALUE))
        numbers, wrong = [], []
        for text in texts:
            try:
                row = tuple(float(x) for x in text.split(SEPARATOR))
            except ValueError:
                row = (math.nan,)
            numbers.append(row)
            if len(row) != len(names) or not all(map(math.isfinite, row)):
                wrong.append(repr(text))
        if wrong:
            raise UserError(f"image list {place}: expected {len(names)} finite numbers a line; found\n{itemize(wrong)}")
        return Values(len(names)), names, numbers
    sets = [[label.strip() for label in text.split(SEPARATOR) if label.strip()] for text in texts]
    known = sorted({label for labels in sets for label in labels})
    if not known:
        raise UserError(
            f"image list {place}: no image has a label; expected labels with {SEPARATOR} between, as in cat{SEPARATOR}dog"
        )
    number = {label: i for i, label in enumerate(known)}
    rows = [tuple(sorted({number[label] for label in labels})) for labels in sets]
    return ClassSet(len(known)), tuple(map(printable, known)), rows
