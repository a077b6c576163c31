"""Tar shards in WebDataset's layout as a data set with random access, so that order, restart and sharing among processes are
those of every other data set."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from vit_jax.data.formats.folders import describe_split
from vit_jax.data.formats.tar import TarFile
from vit_jax.data.formats.tarindex import Rows, Shard, join
from vit_jax.data.formats.tarnames import LAYOUT, find_shards, find_split
from vit_jax.data.formats.tarstore import build_index
from vit_jax.data.image.encoded import MAX_BYTES
from vit_jax.data.source import Origin, Source
from vit_jax.data.splits import parse_split, split_names
from vit_jax.files import MAX_JSON_BYTES, UnreadableFile, read_regular
from vit_jax.types import DatasetSpec, UserError, printable

CLASSES = "classes.txt"
MAX_OPEN = 256  # shards kept open by a process; the usual limit of open files is 1,024


class TarSource(Source):
    """One split of tar shards. Reads from any thread; a worker process opens its own files.

    Args:
      spec: what was asked for and what it holds.
      root: the folder that `shards` are relative to.
      shards: names of the shards.
      shard: int32 (n,), which of them each sample is in.
      rows: the samples, in reading order.
    """

    def __init__(self, spec: DatasetSpec, root: str, shards: Sequence[str], shard: np.ndarray, rows: Rows):
        self.spec = spec
        self.folder = root
        self._shards, self._shard, self._rows = list(shards), shard, rows
        self._open_nothing()

    def _open_nothing(self) -> None:
        self._files: dict[int, TarFile] = {}
        self._opening = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_files", "_opening")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_nothing()

    def __len__(self) -> int:
        return self._rows.num_samples

    def read(self, index: int) -> tuple[bytes, int, str]:
        """Example `index` of the split: (encoded image, label, `SHARD:NAME`). A sample that cannot be read is b"", which
        does not decode: the loader counts it with the corrupt images, by name."""
        rows, shard = self._rows, int(self._shard[index])
        begin = int(rows.name_end[index - 1]) if index else 0
        member = rows.names[begin : int(rows.name_end[index])].tobytes().decode("utf-8", "surrogateescape")
        name = printable(f"{self._shards[shard]}:{member}")
        try:
            if (size := int(rows.size[index])) > MAX_BYTES:
                raise UnreadableFile(f"{size:,} bytes; expected at most {MAX_BYTES:,}")
            data = self._file(shard).read(int(rows.offset[index]), size)
        except OSError as error:
            logging.getLogger(__name__).warning("cannot read %s: %s", name, error)
            data = b""
        return data, int(rows.label[index]), name

    def _file(self, shard: int) -> TarFile:
        file = self._files.get(shard)
        if file is None:
            file = TarFile(os.fspath(epath.Path(self.folder) / self._shards[shard]))
            with self._opening:
                if len(self._files) < MAX_OPEN:
                    file = self._files.setdefault(shard, file)
        return file

    def origin(self) -> Origin:
        """The split, and the folder of the shards."""
        return Origin(self.spec.split, self.folder)

    def part(self, start: int, stop: int) -> TarSource:
        """Examples `start` to `stop` (excluded) alone."""
        rows, begin = self._rows, int(self._rows.name_end[start - 1]) if start else 0
        fields = [field[start:stop] for field in rows[:-2]]
        ends = rows.name_end[start:stop]
        names = rows.names[begin : int(ends[-1]) if len(ends) else begin]
        spec = self.spec._replace(num_examples=len(ends), class_counts=())
        return TarSource(
            spec, self.folder, self._shards, self._shard[start:stop], Rows._make([*fields, ends - begin, names])
        )

    def labels(self) -> np.ndarray:
        """int32 (n,), of all examples."""
        return self._rows.label

    def num_bytes(self) -> int:
        """Bytes of all images, as stored."""
        return int(self._rows.size.sum())


def open_shards(dataset: str, split: str) -> TarSource:
    """Opens tar shards.

    A shard's split is the last of SPLIT_WORDS in its name (`imagenet-val-000.tar`, `test/000.tar`); without one, `train`.
    Classes are the lines of `classes.txt` beside the shards; without it the numbers up to the largest label of `train`
    (of all shards, if none is `train`). Inside a split, samples are ordered by the MD5 of `SPLIT/NAME`, as a folder's
    files are: packed into one tar file a split, a folder keeps its order.

    Args:
      dataset: a folder of shards, one shard, or a pattern with `{000..123}`, `{a,b}`, `*`; `~` and gs:// are understood.
      split: TFDS's syntax over the shards' splits, `train[:90%]`.

    Returns:
      The source.

    Raises:
      UserError: shards that are missing, compressed or damaged, samples that are incomplete or there twice (all in one
        message), classes that do not go with the labels, or an unknown split.
    """
    root, names = find_shards(dataset)
    split_of = {name: find_split(root, name) for name in names}
    splits = sorted(set(split_of.values()))
    wanted = splits if split == "all" else list(dict.fromkeys(split_names(split)))
    if unknown := [name for name in wanted if name not in splits]:
        raise UserError(
            f"tar shards {dataset}: no split {unknown[0]!r} in {split!r}; its splits are {', '.join(splits)}"
        )
    listed = _read_classes(root)
    deciding = [] if listed else ["train"] if "train" in splits else splits  # for the number of classes
    index = build_index(root, {name: s for name, s in split_of.items() if s in {*wanted, *deciding}})
    _refuse_problems(dataset, index)
    largest = {
        s: max(int(shard.rows.label.max()) for name, shard in index.items() if split_of[name] == s)
        for s in dict.fromkeys([*wanted, *deciding])
    }
    classes = listed or [str(label) for label in range(max(largest[s] for s in deciding) + 1)]
    for s in wanted:
        if largest[s] >= len(classes):
            found = f"{root / CLASSES} has" if listed else "train has"
            raise UserError(
                f"tar shards {dataset}: {s} has label {largest[s]}, and {found} {len(classes)} classes; labels count from "
                f"0, and {CLASSES} names one class a line"
            )
    parts = {s: _order_split(dataset, s, [n for n in names if split_of[n] == s], names, index) for s in wanted}
    slices = parse_split(dataset, split, {s: rows.num_samples for s, (_, rows) in parts.items()})
    chosen = [_take(parts[part.name], np.arange(part.start, part.stop)) for part in slices]
    shard = np.concatenate([shard for shard, _ in chosen])
    # A reader does not need the sort keys, which are half of the bytes sent to a worker process.
    rows = join([rows for _, rows in chosen])._replace(order=np.empty(0), key=np.empty(0))
    spec = describe_split(dataset, split, rows.label, classes)
    return TarSource(spec, str(root), names, shard, rows)


def _read_classes(root: epath.Path) -> list[str]:
    """The names in classes.txt, or none if there is no such file."""
    place = root / CLASSES
    if not place.exists():
        return []
    try:
        text = read_regular(place, limit=MAX_JSON_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{place} cannot be read ({error}); expected one class name a line, in UTF-8") from error
    names = [line.strip() for line in text.splitlines() if line.strip()]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice or not names:
        raise UserError(
            f"{place}: expected one class name a line, each once; found {', '.join(twice[:5]) or 'none'} twice"
        )
    return names


def _refuse_problems(dataset: str, index: Mapping[str, Shard]) -> None:
    wrong = {name: shard.problems for name, shard in index.items() if shard.problems}
    if wrong:
        lines = [f"  {name}: {problem}" for name, problems in wrong.items() for problem in problems]
        _refuse(dataset, lines, f"{len(lines)} problems in {len(wrong)} of {len(index)} shards")


def _refuse(dataset: str, lines: list[str], found: str) -> None:
    shown = "\n".join(lines[:10]) + (f"\n  and {len(lines) - 10} more" if len(lines) > 10 else "")
    raise UserError(f"tar shards {dataset}: expected {LAYOUT}; found {found}. Repair or leave out these:\n{shown}")


def _order_split(
    dataset: str, split: str, members: list[str], names: list[str], index: Mapping[str, Shard]
) -> tuple[np.ndarray, Rows]:
    """(shard of each sample, samples) of a split in reading order; `members` are its shards, numbered as in `names`."""
    number = {name: i for i, name in enumerate(names)}
    rows = join([index[name].rows for name in members])
    shard = np.repeat([number[name] for name in members], [index[name].rows.num_samples for name in members]).astype(
        np.int32
    )
    by_key = np.lexsort(rows.key.T)
    twice = np.flatnonzero((rows.key[by_key[1:]] == rows.key[by_key[:-1]]).all(axis=1))
    if len(twice):
        lines = [
            f"  {_name(rows, int(by_key[i]))} of {names[shard[by_key[i]]]} is in {names[shard[by_key[i + 1]]]} too"
            for i in twice
        ]
        _refuse(dataset, lines, f"{len(lines)} keys of {split} in more than one shard (a key is one sample's alone)")
    return _take((shard, rows), np.lexsort((rows.order[:, 1], rows.order[:, 0])))


def _name(rows: Rows, index: int) -> str:
    begin = int(rows.name_end[index - 1]) if index else 0
    return printable(rows.names[begin : int(rows.name_end[index])].tobytes().decode("utf-8", "surrogateescape"))


def _take(samples: tuple[np.ndarray, Rows], chosen: np.ndarray) -> tuple[np.ndarray, Rows]:
    """The chosen samples, in that order."""
    shard, rows = samples
    joined = rows.names.tobytes()
    begin = np.concatenate([[0], rows.name_end[:-1]])[chosen].tolist()
    names = [joined[b:e] for b, e in zip(begin, rows.name_end[chosen].tolist(), strict=True)]
    fields = [field[chosen] for field in rows[:-2]]
    ends = np.cumsum([len(name) for name in names], dtype=np.int64)
    return shard[chosen], Rows._make([*fields, ends, np.frombuffer(b"".join(names), np.uint8)])
