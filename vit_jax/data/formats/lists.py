"""A list of images, `path,label` a line, as a data set."""

from __future__ import annotations

import csv
import os
import re
from typing import NamedTuple

import numpy as np
from etils import epath

from vit_jax.data.formats.columns import SEPARATOR, ColumnsSource, count_columns, is_special, read_columns
from vit_jax.data.formats.folders import FolderSource, describe_split
from vit_jax.data.formats.listing import find_missing, sort_by_hash
from vit_jax.data.splits import parse_split
from vit_jax.files import read_regular
from vit_jax.types import DatasetSpec, UserError, printable

SUFFIXES = (".csv", ".tsv", ".txt")
LAYOUT = (
    "lines of `path,label`, or of `path,label,split`; a header `path,label` is allowed, and `path,labels` or `path,value:NAME` "
    "begins a list of sets (cat;dog) or of numbers"
)
SHOWN = 10
_SCHEME = re.compile(r"(?!gs://)[A-Za-z][A-Za-z0-9+.-]*://")


class Rows(NamedTuple):
    """The lines of a list, a column each."""

    paths: list[str]
    labels: list[str]
    splits: list[str]
    header: tuple[str, ...] = ()  # of a list of sets or numbers, whose labels are then joined by SEPARATOR


def is_list(dataset: str) -> bool:
    """Whether a data set's name is that of a list."""
    return dataset.lower().endswith(SUFFIXES)


def open_list(dataset: str, split: str) -> FolderSource:
    """Opens a list of images.

    Paths are relative to the list's folder, absolute, or gs://. A third column names the split of each line (train, test, ...);
    without one all lines are `train`. Classes are the labels of the whole list, sorted: as numbers, if they are numbers.
    A first line `path,labels` begins a list of images with any number of labels, `a.jpg,cat;dog`; `path,value:AGE,value:SIZE`
    one of images with numbers, a column each.
    Inside a split, examples are ordered by the MD5 of their path, as those of a folder are.

    Args:
      dataset: the list: comma-, tab- or space-separated, UTF-8; `~` and gs:// are understood.
      split: TFDS's syntax over the list's splits, `train[:90%]`.

    Raises:
      UserError: no such file, lines of another form (all named, with their numbers), missing files of the split, or
        an unknown split.
    """
    place = epath.Path(dataset).expanduser()
    rows = read_list(place)
    if rows.header:
        target, names, items = read_columns(rows.header, rows.labels, str(place))
        numbers_of = range(len(items))
    else:
        labels = _order(set(rows.labels))
        number = {label: i for i, label in enumerate(labels)}
        numbers_of = [number[label] for label in rows.labels]  # type: ignore[assignment]
    splits: dict[str, list[tuple[str, int]]] = {}
    for path, label, name in zip(rows.paths, numbers_of, rows.splits, strict=True):
        splits.setdefault(name, []).append((path, label))
    slices = parse_split(str(place), split, {name: len(files) for name, files in splits.items()})
    ordered = {name: sort_by_hash(splits[name]) for name in dict.fromkeys(part.name for part in slices)}
    chosen = [file for part in slices for file in ordered[part.name][part.start : part.stop]]
    paths, root = [path for path, _ in chosen], str(place.parent)
    _refuse_missing(place, root, paths)
    if rows.header:
        spec = DatasetSpec(dataset, split, len(paths), target, names, (None, None, 3))
        return ColumnsSource(spec, root, paths, [items[place] for _, place in chosen])
    numbers = np.array([label for _, label in chosen], np.int32)
    return FolderSource(describe_split(dataset, split, numbers, labels), root, paths, numbers)


def list_splits(dataset: str) -> list[str]:
    """The splits of a list, sorted."""
    return sorted(set(read_list(epath.Path(dataset).expanduser()).splits))


def _refuse_missing(place: epath.Path, root: str, paths: list[str]) -> None:
    if missing := find_missing(root, paths):
        shown = "\n".join(f"  {printable(path)}" for path in missing[:5])
        here = os.path.exists(missing[0])  # from the folder that the command runs in, which is not where lists start
        remedy = f"move the list to {os.getcwd()}, where they are" if here else "correct them, or move the list"
        raise UserError(
            f"image list {place}: {len(missing):,} of {len(paths):,} files are missing; relative paths start from the list's "
            f"folder, {epath.Path(root).resolve()}: {remedy}\n{shown}"
        )


def read_list(place: epath.Path) -> Rows:
    """The lines of a list.

    Raises:
      UserError: no such file, no text, lines that are not of that form, or none.
    """
    try:
        text = read_regular(place).decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"image list {place} does not exist; expected a file with {LAYOUT}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"image list {place} is not UTF-8 text ({error}); expected {LAYOUT}") from error
    except (OSError, ValueError) as error:  # a name that holds NUL
        raise UserError(
            f"image list {printable(str(place))} cannot be read ({error}); expected a file with {LAYOUT}"
        ) from error
    lines = text.splitlines()
    first = next((line for line in lines if line.strip()), "")
    separator = next((s for s in (",", "\t") if s in first), " ")
    header = tuple(_split_line(first, separator))
    columns = count_columns(header) if is_special(header) else 1
    rows = Rows([], [], [], header if is_special(header) else ())
    wrong: list[str] = []
    same: dict[str, str] = {}  # one text for each label and split, in place of a million
    for i, line in enumerate(lines, 1):
        fields = _split_line(line, separator)
        if (not rows.paths and (fields[:2] == ["path", "label"] or tuple(fields) == rows.header)) or fields == [""]:
            continue
        if rows.header and len(fields) > columns:
            fields = [fields[0], SEPARATOR.join(fields[1 : 1 + columns]) or SEPARATOR, *fields[1 + columns :]]
        problem = "" if len(fields) in (2, 3) and all(fields) else repr(line[:80])
        if not problem and (match := _SCHEME.match(fields[0])):
            problem = f"{fields[0][:80]}: expected a path on this machine or gs://, found {match[0]}"
        if problem or "\0" in line:
            wrong.append(f"  line {i}: {problem or f'a path cannot hold NUL: {line[:80]!r}'}")
            continue
        path, label, *name = fields
        rows.paths.append(path)
        rows.labels.append(same.setdefault(label, label))
        rows.splits.append(same.setdefault(name[0], name[0]) if name else "train")
    if len(set(rows.paths)) < len(rows.paths):
        wrong += _name_repeated(lines, separator)
    if wrong or not rows.paths:
        shown = "\n".join(wrong[:SHOWN]) + (f"\n  and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else "")
        raise UserError(f"image list {place}: expected {LAYOUT}; found {len(rows.paths)} such lines\n{shown}".rstrip())
    return rows


def _split_line(line: str, separator: str) -> list[str]:
    """The fields of a line, stripped; one empty field of a blank line."""
    if separator == " ":
        return line.strip().rsplit(None, 1) or [""]
    if '"' not in line:  # the reader of csv costs ten times as much
        return [field.strip() for field in line.split(separator)] if line.strip() else [""]
    try:
        return [field.strip() for field in next(csv.reader([line], delimiter=separator))]
    except csv.Error:  # a field of more than 128 KiB
        return []


def _name_repeated(lines: list[str], separator: str) -> list[str]:
    """Lines whose path stands in another line before."""
    seen: dict[str, int] = {}
    repeated = []
    for i, line in enumerate(lines, 1):
        path = (_split_line(line, separator) or [""])[0]
        if path and seen.setdefault(path, i) != i:
            repeated.append(f"  line {i}: {printable(path)} stands in line {seen[path]} already")
    return repeated


def _order(labels: set[str]) -> list[str]:
    try:
        return sorted(labels, key=int)
    except ValueError:
        return sorted(labels)
