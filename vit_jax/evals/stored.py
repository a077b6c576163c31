"""Features of a data set in a folder: shards of features, labels and ids that a later probe reads, and a description.

`features.json` says what the features are of. A shard holds the examples [i * shard_size, (i + 1) * shard_size) of the split,
less those that did not decode; it takes its name when it is whole, so an interrupted run leaves whole shards only.
"""

from __future__ import annotations

import dataclasses
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vit_jax import partition
from vit_jax.data.source import Source
from vit_jax.evals.base import Scores
from vit_jax.evals.features import Probe
from vit_jax.evals.fewshot import FewShot
from vit_jax.evals.linear import LinearProbe
from vit_jax.evals.neighbours import NearestNeighbours
from vit_jax.files import read_json
from vit_jax.targets import ClassId
from vit_jax.types import DatasetSpec, UserError, counted

DESCRIPTION = "features.json"
MAX_SHARDS = 10**6
# What the two formats' libraries raise on damaged files.
DAMAGE = (
    *(OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, MemoryError, OverflowError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, struct.error, SafetensorError),
)
Format = Literal["safetensors", "npz"]
PROBES: dict[str, type[Probe]] = {"fewshot": FewShot, "knn": NearestNeighbours, "linear": LinearProbe}


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """Features of a data set.

    Args:
      features: (n, d), or (n, tokens, d).
      labels: as the data set labels its examples, int32 (n,) for single classes; None where it does not.
      ids: of the examples: paths, or `SPLIT:INDEX`.
      index: int64 (n,), their places in the split.
      rank: int64 (n,), their places in the order in which TFDS reads the split, from which few-shot examples are drawn; None for
        data that is not TFDS's.
      description: what they are features of.
    """

    features: np.ndarray
    labels: np.ndarray | None
    ids: list[str]
    index: np.ndarray
    rank: np.ndarray | None
    description: dict[str, Any]


def shard_path(folder: Path, description: Mapping[str, Any], number: int) -> Path:
    """The file of a shard."""
    return folder / f"features-{number:05}-of-{count_shards(description):05}.{description['format']}"


def count_shards(description: Mapping[str, Any]) -> int:
    """The number of shards of a whole folder."""
    return -(-int(description["num_examples"]) // int(description["shard_size"]))


def write_shard(path: Path, arrays: Mapping[str, np.ndarray], ids: list[str]) -> None:
    """Writes a shard under a temporary name and renames it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            if path.suffix == ".npz":
                np.savez(file, **{"ids": np.array(ids, np.str_), **arrays})  # type: ignore[arg-type]
        if path.suffix != ".npz":
            save_file(dict(arrays), partial, {"ids": json.dumps(ids)})
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_shard(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of a shard, and the ids.

    Raises:
      UserError: the file is damaged.
    """
    try:
        if path.suffix == ".npz":
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            return arrays, arrays.pop("ids").tolist()
        with safe_open(path, "numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["ids"])  # noqa: SIM118
    except DAMAGE as error:
        raise UserError(f"{path} is damaged ({error}); delete it, and run the command that wrote it again") from error


def read_features(folder: str | os.PathLike[str]) -> Stored:
    """Reads all shards of a folder that `vit_jax features` wrote.

    Raises:
      UserError: there is no such folder, or shards are missing.
    """
    place = Path(folder).expanduser()
    if not (place / DESCRIPTION).exists():
        raise UserError(f"{folder} has no {DESCRIPTION}; expected a folder that `vit_jax features` wrote")
    description = read_json(place / DESCRIPTION)
    numbers = [description.get(key) for key in ("num_examples", "shard_size")]
    known = description.get("format") in get_args(Format) and all(type(x) is int and x > 0 for x in numbers)
    if not known or not 0 < count_shards(description) <= MAX_SHARDS:
        raise UserError(f"{place / DESCRIPTION} is damaged; write the features again, into another folder")
    paths = [shard_path(place, description, i) for i in range(count_shards(description))]
    if missing := [path for path in paths if not path.exists()]:
        raise UserError(
            f"{folder}: {counted(len(missing), 'shard')} of {len(paths)} missing, {missing[0].name} first; the command that "
            "began it, with the same arguments, writes the rest"
        )
    shards = [read_shard(path) for path in paths]
    ids = [name for _, names in shards for name in names]
    try:
        columns = {name: np.concatenate([arrays[name] for arrays, _ in shards]) for name in shards[0][0]}
        if {len(x) for x in columns.values()} != {len(ids)}:
            raise ValueError(f"{len(ids)} ids of {len(columns['index'])} examples")
        return Stored(
            columns["features"], columns.get("labels"), ids, columns["index"], columns.get("rank"), description
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: its shards do not fit each other ({error}); write the features again") from error


class _Rows(Source):
    """What a probe asks of the data that its features are of."""

    def __init__(self, stored: Stored):
        classes = tuple(stored.description.get("classes") or ())
        count = len(classes) or int(np.max(stored.labels if stored.labels is not None else 0, initial=0)) + 1
        self.spec = DatasetSpec("stored", "train", len(stored.ids), ClassId(count), classes, (None, None, 3))
        self._rank = stored.rank

    def reading_order(self) -> np.ndarray | None:
        """See `Source`."""
        return None if self._rank is None else np.argsort(self._rank)


def probe(kind: str, train: Stored, test: Stored, **options: Any) -> Scores:
    """Fits a probe to stored features and scores it on others of the same model.

    Args:
      kind: `fewshot`, `knn` or `linear`.
      train, test: from `read_features`.
      **options: of `FewShot`, `NearestNeighbours` or `LinearProbe`: `neighbours=(10,)`, `shots=(5,)`, `l2_reg=0.1`.

    Raises:
      UserError: an unknown kind or option, features of tokens, labels that are missing or no classes, or features of two models.
    """
    if kind not in PROBES:
        raise UserError(f"kind is {kind!r}; expected {', '.join(PROBES)}")
    for name, stored in (("train", train), ("test", test)):
        if stored.labels is None or stored.labels.ndim != 1 or not np.issubdtype(stored.labels.dtype, np.integer):
            raise UserError(f"the {name} features have no class for each example, and a probe needs one")
        if stored.features.ndim != 2:
            raise UserError(
                f"the {name} features are {stored.features.shape}, a vector per token; write them with --pool=mean"
            )
    facts = [{key: stored.description.get(key) for key in ("fingerprint", "layer", "pool")} for stored in (train, test)]
    if facts[0] != facts[1] or train.features.shape[1] != test.features.shape[1]:
        raise UserError(f"the features are of different models or layers: {facts[0]} and {facts[1]}")
    try:
        evaluator = PROBES[kind](train_split="train", test_split="test", **options)
    except TypeError as error:
        raise UserError(f"the probe {kind} has no such option ({error})") from error
    evaluator._sources = [_Rows(train), _Rows(test)]
    return evaluator.score((train.features, train.labels), (test.features, test.labels), partition.make_mesh(1))  # type: ignore[arg-type]
