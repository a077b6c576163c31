"""A list of images, `path,label` a line, as a data set. Called by: data.sources."""

from __future__ import annotations

import csv
import hashlib

import numpy as np
from etils import epath

from vit_jax.data.folders import FolderSource, describe_split
from vit_jax.data.splits import parse_split
from vit_jax.types import UserError

SUFFIXES = (".csv", ".tsv", ".txt")
LAYOUT = "lines of `path,label`, or of `path,label,split`; a header `path,label` is allowed"


def is_list(dataset: str) -> bool:
    """Whether a data set's name is that of a list."""
    return dataset.lower().endswith(SUFFIXES)


def open_list(dataset: str, split: str) -> FolderSource:
    """Opens a list of images.

    Paths are relative to the list's folder, or absolute. A third column names the split of each line (train, test, ...);
    without one all lines are `train`. Classes are the labels of the whole list, sorted: as numbers, if they are numbers.
    Inside a split, examples are ordered by the MD5 of their path, as those of a folder are.

    Args:
      dataset: the list: comma-, tab- or space-separated, UTF-8; `~` and gs:// are understood.
      split: TFDS's syntax over the list's splits, `train[:90%]`.

    Raises:
      UserError: no such file, lines of another form (all named, with their numbers), or an unknown split.
    """
    place = epath.Path(dataset).expanduser()
    if not place.is_file():
        raise UserError(f"image list {place} does not exist; expected a file with {LAYOUT}")
    rows = read_list(place)
    labels = _order({label for _, label, _ in rows})
    number = {label: i for i, label in enumerate(labels)}
    splits: dict[str, list[tuple[str, int]]] = {}
    for path, label, name in rows:
        splits.setdefault(name, []).append((path, number[label]))
    counts = {name: len(files) for name, files in splits.items()}
    chosen: list[tuple[str, int]] = []
    for part in parse_split(str(place), split, counts):
        files = sorted(splits[part.name], key=lambda f: hashlib.md5(f[0].encode(), usedforsecurity=False).digest())
        chosen += files[part.start : part.stop]
    numbers = np.array([label for _, label in chosen], np.int32)
    spec = describe_split(dataset, split, numbers, labels)
    return FolderSource(spec, str(place.parent), [path for path, _ in chosen], numbers)


def read_list(place: epath.Path) -> list[tuple[str, str, str]]:
    """(path, label, split) of each line.

    Raises:
      UserError: lines that are not of that form, or none.
    """
    try:
        text = place.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"image list {place} is not UTF-8 text ({error}); expected {LAYOUT}") from error
    lines = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    separator = next((s for s in (",", "\t") if lines and s in lines[0][1]), " ")
    rows: list[tuple[str, str, str]] = []
    wrong: list[str] = []
    seen: dict[str, int] = {}
    for i, line in lines:
        if separator == " ":
            fields = line.strip().rsplit(None, 1)
        else:
            fields = [field.strip() for field in next(csv.reader([line], delimiter=separator))]
        if not rows and fields[:2] == ["path", "label"]:
            continue
        if len(fields) not in (2, 3) or not all(fields):
            wrong.append(f"  line {i}: {line[:80]!r}")
            continue
        path, label, *name = fields
        if path in seen:
            wrong.append(f"  line {i}: {path} stands in line {seen[path]} already")
        seen[path] = i
        rows.append((path, label, name[0] if name else "train"))
    if wrong or not rows:
        shown = "\n".join(wrong[:10]) + (f"\n  and {len(wrong) - 10} more" if len(wrong) > 10 else "")
        raise UserError(f"image list {place}: expected {LAYOUT}; found {len(rows)} such lines\n{shown}".rstrip())
    return rows


def _order(labels: set[str]) -> list[str]:
    try:
        return sorted(labels, key=int)
    except ValueError:
        return sorted(labels)
