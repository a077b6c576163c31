"""Packs images, from a folder, a list or tar shards, into sharded ArrayRecord once: sequential reads, and few files.

The files are stored as they are, in reading order, so the packed set gives the same batches as what it was packed from.
Each shard is written by itself: threads do it here, or Apache Beam on as many machines as one has
(`data.pack_beam`).
"""

from __future__ import annotations

import concurrent.futures
import io
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from etils import epath

from vit_jax.data.formats.descriptions import PACKED_AS
from vit_jax.data.formats.folders import folder_splits, open_folder
from vit_jax.data.formats.lists import is_list, list_splits, open_list
from vit_jax.data.formats.shards import open_shards
from vit_jax.data.formats.tarnames import is_shards, shard_splits
from vit_jax.data.image.decode import decode
from vit_jax.data.image.encoded import CorruptImage
from vit_jax.data.prepare.packed import describe, make_features, shard_path, write_labels
from vit_jax.data.prepare.prepare import quietly
from vit_jax.data.prepare.scratch import PARTIAL, scratch_beside
from vit_jax.data.prepare.shrink import shrink
from vit_jax.types import DatasetSpec, UserError

CORRUPT_LIST = "corrupt.txt"
# A record a chunk, for random access. Encoded images do not get smaller: compressed, they took 20 us more to read.
WRITER_OPTIONS = "group_size:1,uncompressed"


class Packable(Protocol):
    """A source that can be packed: a `data.source.Source` that knows its size and can be cut into parts."""

    spec: DatasetSpec

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def read(self, index: int) -> tuple[bytes, int, str]:
        """(encoded image, label, name) of an example."""
        ...

    def part(self, start: int, stop: int) -> Packable:
        """Examples `start` to `stop` (excluded) alone."""
        ...

    def num_bytes(self) -> int:
        """Bytes of all encoded images."""
        ...


class NewShard(NamedTuple):
    """One shard to write: the split it belongs to, what goes in, where to, and what larger images are reduced to (0: nothing)."""

    split: str
    source: Packable
    path: str
    short_side: int = 0


class Written(NamedTuple):
    """The result of writing a shard: labels of its examples, their bytes, and `name: reason` of each image that was left out."""

    labels: list[int]
    num_bytes: int
    corrupt: list[str]


class Packed(NamedTuple):
    """The result of packing: the folder, examples per split, and `name: reason` of each image that was left out."""

    folder: str
    splits: dict[str, int]
    corrupt: list[str]


WriteShards = Callable[[Sequence[NewShard], tuple[str, ...]], list[Written]]


def pack(
    dataset: str,
    to: str,
    *,
    threads: int = 2,
    num_shards: int = 0,
    short_side: int = 0,
    run: WriteShards | None = None,
) -> Packed:
    """Packs every split of a folder or list of images, or of tar shards.

    Args:
      dataset: folder with train/<class>/, a list of `path,label`, or tar shards (see `data.formats.shards`).
      to: folder to write; must not exist. A run names it as its data set.
      threads: that read and check images; each is decoded once, and what does not decode is left out and named.
      num_shards: of each split; 0 for TFDS's rule: one below 128 MiB, then a power of two of shards of 64 MiB or more, to
        1,024; from 1 TiB on as many thousands as keep a shard below 1 GiB.
      short_side: pixels to which the shorter side of larger images is reduced; they become JPEGs. A recipe that needs more is
        then refused. 0 stores all files as they are.
      run: writes the shards, in place of `threads`: `data.pack_beam.run_beam`.

    Raises:
      UserError: `to` exists, the layout is another, or no image of a split decodes.
    """
    target = epath.Path(to).expanduser()
    if short_side < 0:
        raise UserError(f"--short-side={short_side}; expected pixels, or 0 to store images as they are")
    if target.exists():
        raise UserError(f"--to={to} exists; give a folder that does not, or remove it first")
    sources = {name: _open(dataset, name) for name in _split_names(dataset)}
    classes = next(iter(sources.values())).spec.class_names
    with scratch_beside(target) as scratch:
        shards = [shard for name, source in sources.items() for shard in _cut(name, source, scratch, num_shards)]
        shards = [shard._replace(short_side=short_side) for shard in shards]
        with quietly():
            done = run(shards, classes) if run else [write_shard(shard, classes, threads) for shard in shards]
        counts = _finish(dataset, shards, done, classes, scratch)
        if short_side:
            (scratch / PACKED_AS).write_text(json.dumps({"short_side": short_side}) + "\n")
        corrupt = sorted(line for written in done for line in written.corrupt)
        if corrupt:
            (scratch / CORRUPT_LIST).write_text("\n".join(corrupt) + "\n")
    return Packed(str(target), counts, corrupt)


def _open(dataset: str, split: str) -> Packable:
    if is_list(dataset):
        return open_list(dataset, split)
    return open_shards(dataset, split) if is_shards(dataset) else open_folder(dataset, split)


def _split_names(dataset: str) -> list[str]:
    if is_list(dataset):
        return list_splits(dataset)
    return shard_splits(dataset) if is_shards(dataset) else folder_splits(dataset)


def _cut(split: str, source: Packable, folder: epath.Path, num_shards: int) -> Iterator[NewShard]:
    """The shards of a split, of equally many examples each."""
    from tensorflow_datasets.core.utils import shard_utils

    count = num_shards or shard_utils.ShardConfig.calculate_number_shards(source.num_bytes(), len(source))
    count, start = min(count, len(source)), 0
    for i, stop in enumerate(shard_utils.get_shard_boundaries(len(source), count)):
        yield NewShard(split, source.part(start, stop), shard_path(folder, split, i, count))
        start = stop


def write_shard(shard: NewShard, classes: tuple[str, ...], threads: int) -> Written:
    """Writes one shard: reads, decodes (to check) and stores its images, in order.

    Args:
      shard: what to write, and where to.
      classes: names of all classes.
      threads: that read and check.
    """
    from array_record.python import array_record_module
    from tensorflow_datasets.core import example_serializer

    features = make_features(classes)
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    labels, size, corrupt = list[int](), 0, list[str]()
    remote = "://" in shard.path
    with tempfile.TemporaryDirectory() as scratch:
        # ArrayRecord writes local files only. Under another name first: Beam may run a shard twice at the same time.
        path = os.path.join(scratch, "shard") if remote else f"{shard.path}.{secrets.token_hex(4)}{PARTIAL}"
        writer = array_record_module.ArrayRecordWriter(path, WRITER_OPTIONS)
        for data, label, name, problem in _read_all(shard.source, threads, shard.short_side):
            if problem:
                corrupt.append(f"{name}: {problem}")
                continue
            example = features.encode_example({"image": io.BytesIO(data), "label": label})
            # Sorted, for otherwise the order of the two features differs between processes: packing twice is to give the
            # same files.
            record = serializer.get_tf_example(example).SerializeToString(deterministic=True)
            writer.write(record)
            labels.append(label)
            size += len(record)
        writer.close()
        if remote:
            with open(path, "rb") as read, epath.Path(shard.path).open("wb") as write:
                shutil.copyfileobj(read, write, 1 << 24)
        else:
            os.replace(path, shard.path)
    return Written(labels, size, corrupt)


def _read_all(source: Packable, threads: int, short_side: int) -> Iterator[tuple[bytes, int, str, str]]:
    """All examples in order, as `_check` gives them."""
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        step = 64 * threads  # bounds what waits in memory
        for start in range(0, len(source), step):
            yield from pool.map(lambda i: _check(source, i, short_side), range(start, min(start + step, len(source))))


def _check(source: Packable, index: int, short_side: int) -> tuple[bytes, int, str, str]:
    """(bytes, label, name, what is wrong with it or "")."""
    data, label, name = source.read(index)
    try:
        if short_side:
            data = shrink(data, short_side)
        else:
            decode(data)
    except CorruptImage as error:
        return data, label, name, str(error)
    return data, label, name, ""


def _finish(
    dataset: str, shards: Sequence[NewShard], done: Sequence[Written], classes: tuple[str, ...], folder: epath.Path
) -> dict[str, int]:
    """Drops shards that stayed empty, writes TFDS's description of the rest; returns the examples of each split."""
    splits: dict[str, list[tuple[NewShard, Written]]] = {}
    for shard, written in zip(shards, done, strict=True):
        splits.setdefault(shard.split, []).append((shard, written))
    for pairs in splits.values():
        if not any(written.labels for _, written in pairs):
            last = pairs[-1][1].corrupt[-1]
            raise UserError(f"{dataset}: no image of a split decodes; the last: {last}")
    lengths: dict[str, list[tuple[int, int]]] = {}
    for left in folder.glob(f"*{PARTIAL}"):  # by a worker that was stopped and started again elsewhere
        left.unlink()
    for split, pairs in splits.items():
        kept = [(shard.path, written) for shard, written in pairs if written.labels]
        for shard, written in pairs:
            if not written.labels:
                epath.Path(shard.path).unlink()
        for i, (path, _) in enumerate(kept):
            if (final := shard_path(folder, split, i, len(kept))) != path:
                epath.Path(path).rename(final)
        lengths[split] = [(len(written.labels), written.num_bytes) for _, written in kept]
        write_labels([label for _, written in kept for label in written.labels], folder, split)
    describe(lengths, classes, folder)
    return {split: sum(count for count, _ in counts) for split, counts in lengths.items()}
