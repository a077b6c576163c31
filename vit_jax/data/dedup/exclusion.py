"""Lists of training examples to leave out (arXiv 2010.11929, section 4.1), and the source without them.

A list names examples by the path of a file, or by the index in the stored split of a prepared data set. Its first line says
which data it was made for, and other data is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.data.open import open_source
from vit_jax.data.source import Source, SubsetSource
from vit_jax.data.splits import Slice, parse_split, split_names
from vit_jax.files import read_regular
from vit_jax.types import UserError, printable

HEADER = "# vit_jax exclusion list: "
PROBES = 8  # examples whose bytes stand for a data set
COMMAND = "vit_jax dedup"


def probe(source: Source) -> str:
    """A digest of a source's size and of the bytes of eight examples spread over it."""
    digest = hashlib.md5(str(len(source)).encode(), usedforsecurity=False)
    for index in np.unique(np.linspace(0, len(source) - 1, PROBES).astype(int)) if len(source) else ():
        digest.update(source.read(int(index))[0])
    return digest.hexdigest()


class ExcludedSource(SubsetSource):
    """A source without some of its examples; the others keep their order. Only the excluded indices are held in memory.

    Args:
      source: the whole.
      excluded: int (m,), indices into it, sorted, each once.
    """

    def __init__(self, source: Source, excluded: np.ndarray):
        super().__init__(source, excluded)
        left = len(source) - len(excluded)
        self.spec = source.spec._replace(num_examples=left, num_excluded=len(excluded), class_counts=())
        self._before = excluded - np.arange(len(excluded))  # examples kept before each that is not

    def whole(self, indices: Sequence[int]) -> list[int]:
        """Indices into the whole source."""
        kept = np.asarray(indices, np.int64)
        return [int(i) for i in kept + np.searchsorted(self._before, kept, side="right")]


def stored_splits(source: Source, data_dir: str = "") -> dict[str, Source]:
    """The stored splits that a source reads from, each whole.

    Raises:
      UserError: its split is a name for parts of stored ones (VTAB's train800).
    """
    name, split = source.spec.name, source.spec.split
    if source.origin().split != split:
        raise UserError(
            f"{name} {split} is part of another data set; an exclusion list names examples of a stored split: give the data "
            "set's own name and split"
        )
    names = dict.fromkeys(split_names(split))
    return {part: source if part == split else open_source(name, part, data_dir) for part in names}


def write_exclusion(file: Path, source: Source, indices: Iterable[int], against: Sequence[str], data_dir: str) -> None:
    """Writes the list of examples `indices` of `source`; replaces a file that is there.

    Args:
      file: a header, then one id a line.
      source: what was searched.
      indices: into it.
      against: what it was compared with, for the reader.
      data_dir: where TFDS data sets are.
    """
    wholes = stored_splits(source, data_dir)
    ids = sorted(set(example_ids(source, indices, {part: len(whole) for part, whole in wholes.items()})))
    header = {
        "dataset": source.spec.name,
        "version": _version(source),
        "split": source.spec.split,
        "stored": {part: {"examples": len(whole), "probe": probe(whole)} for part, whole in wholes.items()},
        "ids": _kind_of_ids(source),
        "excluded": len(ids),
        "against": list(against),
    }
    if broken := [example for example in ids if "\n" in example]:
        raise UserError(f"{printable(broken[0])} cannot stand in a list, of one name a line; rename the file")
    partial = file.with_suffix(".partial")
    content = HEADER + json.dumps(header) + "\n" + "".join(f"{example}\n" for example in ids)
    partial.write_bytes(content.encode("utf-8", "surrogateescape"))
    partial.replace(file)


def example_ids(source: Source, indices: Iterable[int], counts: dict[str, int]) -> list[str]:
    """Names of examples that outlast a run: a file's path, or `train#17`, the index in the stored split.

    Args:
      source: from `open_source`.
      indices: into it.
      counts: examples of each stored split.
    """
    indices = [int(i) for i in indices]
    own = source.ids(indices)
    if own is not None:
        return own
    slices = parse_split(source.spec.name, source.spec.split, counts)
    ends = np.cumsum([part.stop - part.start for part in slices])
    ids = []
    for index in indices:
        which = int(np.searchsorted(ends, index, side="right"))
        part = slices[which]
        ids.append(f"{part.name}#{part.stop - (int(ends[which]) - index)}")
    return ids


def _kind_of_ids(source: Source) -> str:
    return "index" if source.ids(()) is None else "path"


def _version(source: Source) -> str:
    """The version of a prepared data set, which is the last part of its folder, 3.0.2; else empty."""
    name = Path(source.origin().folder).name
    return name if name.replace(".", "").isdigit() and name.count(".") == 2 else ""


def exclude(source: Source, path: str, data_dir: str = "") -> ExcludedSource:
    """Leaves out the examples that a list names.

    Args:
      source: from `open_source`; any part of what the list was made of, train_kept too.
      path: the list.
      data_dir: where TFDS data sets are.

    Raises:
      UserError: no such file, no such list, a list of other data, or of less than this source reads.
    """
    header, ids = _read_exclusion(path)
    # A list names examples of a stored split, of which train_kept is some.
    whole = source.source if isinstance(source, SubsetSource) else source
    counts = _check_header(path, header, whole, data_dir)
    if header["ids"] == "path":
        left_out = set(ids)
        places = np.array(
            [i for i, name in enumerate(whole.ids(range(len(whole))) or ()) if name in left_out], np.int64
        )
    else:
        places = _positions(parse_split(whole.spec.name, whole.spec.split, counts), ids)
    if isinstance(source, SubsetSource):
        places = np.flatnonzero(np.isin(source.indices, places))
    if len(places) == len(source):
        raise UserError(f"{path} leaves out every example of {source.spec.name} {source.spec.split}; nothing is left")
    return ExcludedSource(source, places)


def _read_exclusion(path: str) -> tuple[dict[str, Any], list[str]]:
    remedy = f"`{COMMAND} --help` says how one is made"
    try:
        text = read_regular(Path(path).expanduser()).decode("utf-8", "surrogateescape")
    except (OSError, ValueError) as error:
        raise UserError(f"exclusion list {path} cannot be read ({error}); {remedy}") from error
    first, *ids = text.removesuffix("\n").split("\n")
    header: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        header = json.loads(first.removeprefix(HEADER)) if first.startswith(HEADER) else None
    if not _is_header(header):
        raise UserError(
            f"{path} is no exclusion list: expected a first line {HEADER!r}..., found {first[:60]!r}; {remedy}"
        )
    if len(ids) != header["excluded"]:
        raise UserError(
            f"exclusion list {path}: expected {header['excluded']:,} ids, found {len(ids):,}; copy it again, or, if you edited "
            f'it, write "excluded": {len(ids)} in its first line'
        )
    return header, ids


def _is_header(header: Any) -> bool:
    """Whether a value has the fields that `write_exclusion` writes, of their types."""
    kinds = {"dataset": str, "version": str, "split": str, "stored": dict, "ids": str, "excluded": int}
    if not isinstance(header, dict) or not all(isinstance(header.get(key), kind) for key, kind in kinds.items()):
        return False
    stored = header["stored"].values()
    return all(
        isinstance(s, dict) and isinstance(s.get("examples"), int) and isinstance(s.get("probe"), str) for s in stored
    )


def _check_header(path: str, header: dict[str, Any], source: Source, data_dir: str) -> dict[str, int]:
    """Compares a list with the data it is to be used on; returns the examples of the stored splits."""
    wholes = stored_splits(source, data_dir)
    counts = {part: len(whole) for part, whole in wholes.items()}
    wrong = []
    if (mine := _version(source)) != header["version"]:
        wrong.append(f"expected version {header['version'] or '(none)'}, found {mine or '(none)'}")
    if (kind := _kind_of_ids(source)) != header["ids"]:
        wrong.append(f"expected examples known by {header['ids']}, found by {kind}")
    for part, whole in wholes.items():
        made = header["stored"].get(part)
        if made is None:
            wrong.append(f"expected splits {', '.join(header['stored'])}, found {part}")
        elif made["examples"] != len(whole):
            wrong.append(f"expected {made['examples']:,} examples in {part}, found {len(whole):,}")
        elif made["probe"] != probe(whole):
            wrong.append(f"{part} has other images, or in another order")
    if not wrong:
        searched = parse_split(header["dataset"], header["split"], counts | _counts(header))
        missing = _uncovered(searched, parse_split(source.spec.name, source.spec.split, counts))
        if missing:
            wrong.append(f"{missing:,} examples of {source.spec.split} were not searched (only {header['split']} was)")
    if wrong:
        raise UserError(
            f"exclusion list {path} was made for {header['dataset']} {header['split']} and not for {source.spec.name} "
            f"{source.spec.split}: {'; '.join(wrong)}. Make one: `{COMMAND} --train={source.spec.name}@{source.spec.split} ...`"
        )
    return counts


def _counts(header: dict[str, Any]) -> dict[str, int]:
    return {part: made["examples"] for part, made in header["stored"].items()}


def _uncovered(searched: list[Slice], wanted: list[Slice]) -> int:
    """Examples of `wanted` that are not in `searched`."""
    missing = 0
    for part in wanted:
        seen = np.zeros(part.stop - part.start, bool)
        for other in searched:
            if other.name == part.name:
                seen[max(other.start - part.start, 0) : max(other.stop - part.start, 0)] = True
        missing += int((~seen).sum())
    return missing


def _positions(slices: list[Slice], ids: list[str]) -> np.ndarray:
    """Sorted indices, into the source made of `slices`, of `train#17` and the like."""
    numbers: dict[str, list[int]] = {}
    for text in ids:
        name, _, number = text.rpartition("#")
        if not number.isdigit():
            raise UserError(f"exclusion list: expected ids like train#17, found {text!r}; make the list again")
        numbers.setdefault(name, []).append(int(number))
    parts, offset = [np.zeros(0, np.int64)], 0
    for part in slices:
        stored = np.array(numbers.get(part.name, []), np.int64)
        parts.append(stored[(stored >= part.start) & (stored < part.stop)] - part.start + offset)
        offset += part.stop - part.start
    return np.unique(np.concatenate(parts))
