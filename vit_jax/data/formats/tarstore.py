"""The index of tar shards: built from their headers once, kept beside them, rebuilt for a shard that changed."""

from __future__ import annotations

import concurrent.futures
import hashlib
import logging
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from etils import epath

from vit_jax.data.formats.tarindex import Rows, Shard, could_be_scanned, join, scan_shard
from vit_jax.files import open_regular

FILE = ".vit_jax_tar_index.npz"
VERSION = 1  # of what is stored

T = TypeVar("T")


def build_index(root: epath.Path, shards: Mapping[str, str]) -> dict[str, Shard]:
    """The samples of each shard, from the stored index where the shard is what it was.

    Args:
      root: the folder that the names are relative to, and that keeps the index; where it cannot be written, the user's
        cache folder does.
      shards: {name relative to `root`: the split it belongs to}.
    """
    stored = _load(root)
    stamps = dict(zip(shards, _in_threads(lambda name: _stamp(root / name), list(shards)), strict=True))
    have = {name: shard for name, shard in stored.items() if shard.stamp == stamps.get(name)}
    new = [name for name in shards if name not in have]
    if not new:
        return have
    scan = _in_threads(lambda name: scan_shard(str(root / name), shards[name], stamps[name]), new)
    have |= dict(zip(new, scan, strict=True))
    # Entries of other splits and patterns stay as long as their shards exist.
    keep = {name: shard for name, shard in stored.items() if name not in have and (root / name).exists()}
    _store(root, {name: shard for name, shard in (keep | have).items() if not shard.problems})
    return have


def _in_threads(function: Callable[[str], T], names: list[str]) -> list[T]:
    # A disk or a bucket that answers late is asked for several shards at once; more threads only contend for the GIL.
    with concurrent.futures.ThreadPoolExecutor(min(4, max(1, len(names)))) as pool:
        return list(pool.map(function, names))


def _stamp(path: epath.Path) -> tuple[int, int]:
    """(bytes, time of last change) of a shard; zeros if it cannot be read, which scanning it will say."""
    try:
        if "://" in str(path):
            stat = path.stat()
            return stat.length, int(stat.mtime or 0)
        local = os.stat(path)
    except OSError:
        return 0, 0
    return local.st_size, local.st_mtime_ns


def _places(root: epath.Path) -> list[epath.Path]:
    """The places of an index: beside the shards, else in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    digest = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    return [root / FILE, epath.Path(cache) / "vit_jax" / "tar_index" / f"{digest}.npz"]


def _load(root: epath.Path) -> dict[str, Shard]:
    """The entries stored in both places. A file that cannot be read, or that no scan has written, counts as missing."""
    shards: dict[str, Shard] = {}
    for place in reversed(_places(root)):
        try:
            with open_regular(place) as file:
                size = file.seek(0, os.SEEK_END)
                with zipfile.ZipFile(file) as stored:
                    # As np.savez writes it, so no member is larger than the file.
                    if any(i.compress_type != zipfile.ZIP_STORED or i.file_size > size for i in stored.infolist()):
                        continue
                file.seek(0)
                with np.load(file, allow_pickle=False) as arrays:
                    shards |= _unpack({name: arrays[name] for name in arrays.files})
        except Exception:  # of the many that damaged zip and npy files raise
            continue
    return shards


def _unpack(arrays: Mapping[str, np.ndarray]) -> dict[str, Shard]:
    # numpy makes text of any numbers, and Python fails later of those that are no characters.
    if int(arrays["version"]) != VERSION or arrays["shards"].view(np.uint32).max(initial=0) > sys.maxunicode:
        return {}
    shards, row, byte = {}, 0, 0
    table = zip(arrays["shards"], arrays["counts"], arrays["bytes"], arrays["stamps"], strict=True)
    for name, count, length, stamp in table:
        fields = [arrays[field][row : row + count] for field in Rows._fields[:-1]]
        rows = Rows._make([*fields, arrays["names"][byte : byte + length]])
        rows = rows._replace(name_end=rows.name_end - byte)
        if could_be_scanned(rows, int(count), int(length)):
            shards[str(name)] = Shard(rows, (), (int(stamp[0]), int(stamp[1])))
        row, byte = row + count, byte + length
    return shards


def _store(root: epath.Path, shards: Mapping[str, Shard]) -> None:
    """Writes the index to the first place that takes it, under another name first: a reader never sees half of one."""
    if not shards:
        return
    arrays = join([shard.rows for shard in shards.values()])._asdict() | {
        "version": np.array(VERSION),
        "shards": np.array(list(shards)),
        "counts": np.array([shard.rows.num_samples for shard in shards.values()], np.int64),
        "bytes": np.array([len(shard.rows.names) for shard in shards.values()], np.int64),
        "stamps": np.array([shard.stamp for shard in shards.values()], np.int64),
    }
    for place in _places(root):
        partial = ""
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if "://" in str(place):  # an object store shows a file when it is whole
                with place.open("wb") as file:
                    np.savez(file, **arrays)
                return
            with tempfile.NamedTemporaryFile(dir=place.parent, prefix=place.name, delete=False) as temporary:
                partial = temporary.name
                np.savez(temporary, **arrays)
            os.chmod(partial, 0o644)
            os.replace(partial, place)
            return
        except OSError as error:
            logging.getLogger(__name__).debug("cannot keep the index of %s in %s: %s", root, place, error)
            if partial and os.path.exists(partial):
                os.unlink(partial)
