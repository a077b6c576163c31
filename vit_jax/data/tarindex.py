"""Where the samples of tar shards lie: built from the headers once, kept beside the shards, rebuilt for a shard that changed.

WebDataset's convention: the files of a sample share their path up to the first dot of the base name (the key); the rest
says what each is. Called by: data.shards.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import logging
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from etils import epath

from vit_jax.data.tar import LINK, REGULAR, DamagedTar, Member, TarFile, iter_members

IMAGES = (b"jpg", b"jpeg", b"png", b"webp")  # of several in one sample the first in this order is the image
MAX_LABEL = 10**6  # a larger one is a mistake: each class is a row of the head
FILE = ".vit_jax_tar_index.npz"
VERSION = 1  # of what is stored

T = TypeVar("T")


class Rows(NamedTuple):
    """Samples of one shard or of several, one after the other.

    Args:
      offset: int64 (n,), first byte of the image in its shard.
      size: int64 (n,), its bytes.
      label: int32 (n,).
      order: uint64 (n, 2), the MD5 of `SPLIT/NAME`, by which samples are ordered.
      key: uint64 (n, 2), the MD5 of the key, by which duplicates are found.
      name_end: int64 (n,), where the image's name ends in `names`.
      names: uint8, the names of the images as stored, joined.
    """

    offset: np.ndarray
    size: np.ndarray
    label: np.ndarray
    order: np.ndarray
    key: np.ndarray
    name_end: np.ndarray
    names: np.ndarray

    @property
    def num_samples(self) -> int:
        """n."""
        return len(self.offset)


class Shard(NamedTuple):
    """One shard's samples, what is wrong with it, and the size and time of change that they hold for."""

    rows: Rows
    problems: tuple[str, ...]
    stamp: tuple[int, int]


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
    # What other splits and patterns have stored stays, as long as the shard is there.
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


def scan_shard(path: str, split: str, stamp: tuple[int, int] = (0, 0)) -> Shard:
    """Reads a shard's headers and labels, never its images.

    Args:
      path: of the shard.
      split: put in front of the images' names for the order, unless they begin with it.
      stamp: kept with the result.

    Returns:
      Its samples, and every problem found: a damaged file, a sample without image or label, a label that is no class.
    """
    samples: dict[bytes, dict[bytes, Member]] = {}
    problems: list[str] = []
    try:
        file = TarFile(path)
    except OSError as error:
        return Shard(_to_rows([], split), (f"cannot be read ({error.strerror or error})",), stamp)
    try:
        for member in iter_members(file):
            key, extension = _split_name(member.name)
            if member.kind not in (REGULAR, LINK) or not extension:
                continue
            if extension in samples.setdefault(key, {}):
                problems.append(f"{_show(key)}.{_show(extension)} is there twice")
            samples[key][extension] = member
        found = []
        for key, members in samples.items():
            image, label, problem = _read_sample(file, members)
            if problem:
                problems.append(f"{_show(key)}: {problem}")
            elif image:
                found.append((key, image, label))
        if not samples:
            problems.append("holds no samples")
    except OSError as error:
        return Shard(_to_rows([], split), (f"cannot be read ({error.strerror or error})",), stamp)
    except DamagedTar as error:
        return Shard(_to_rows([], split), (str(error),), stamp)
    finally:
        file.close()
    return Shard(_to_rows(found, split), tuple(problems), stamp)


def _split_name(name: bytes) -> tuple[bytes, bytes]:
    """(key, extension in lower case); no extension for what is no file of a sample: hidden or `__meta__` files."""
    folder, slash, base = name.removeprefix(b"./").rpartition(b"/")
    stem, _, extension = base.partition(b".")
    if not stem or (stem.startswith(b"__") and stem.endswith(b"__")):
        return name, b""
    return folder + slash + stem, extension.lower()


def _read_sample(file: TarFile, members: Mapping[bytes, Member]) -> tuple[Member | None, int, str]:
    """(image, label, what is wrong) of one sample; the label is that of .cls, else `label` in .json."""
    image = next((members[extension] for extension in IMAGES if extension in members), None)
    if image is None:
        return None, 0, f"no image (.jpg, .jpeg, .png or .webp) among .{', .'.join(map(_show, members))}"
    if image.kind == LINK:
        return None, 0, "its image is a link; pack with `tar --hard-dereference --dereference`"
    if b"cls" in members:
        text = file.read(members[b"cls"].offset, min(members[b"cls"].size, 64))
        found = int(text) if re.fullmatch(rb"\s*\d{1,9}\s*", text) else None
        if found is None or found >= MAX_LABEL:
            return None, 0, f".cls holds {_show(text[:40])!r}, expected an integer from 0 to {MAX_LABEL - 1:,}"
        return image, found, ""
    if b"json" not in members:
        return None, 0, f"no label (.cls, or .json with `label`) beside .{', .'.join(map(_show, members))}"
    try:
        content = json.loads(file.read(members[b"json"].offset, members[b"json"].size))
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are such
        return None, 0, f".json cannot be read ({error})"
    label = content.get("label") if isinstance(content, dict) else None
    if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < MAX_LABEL:
        return None, 0, f".json has the label {label!r}, expected an integer from 0 to {MAX_LABEL - 1:,}"
    return image, label, ""


def _to_rows(found: Sequence[tuple[bytes, Member, int]], split: str) -> Rows:
    start = split.encode() + b"/"
    names = [image.name.removeprefix(b"./") for _, image, _ in found]
    return Rows(
        np.array([image.offset for _, image, _ in found], np.int64),
        np.array([image.size for _, image, _ in found], np.int64),
        np.array([label for *_, label in found], np.int32),
        _digests([name if name.startswith(start) else start + name for name in names]),
        _digests([key for key, *_ in found]),
        np.cumsum([len(name) for name in names], dtype=np.int64),
        np.frombuffer(b"".join(names), np.uint8),
    )


def _digests(texts: Sequence[bytes]) -> np.ndarray:
    joined = b"".join(hashlib.md5(text, usedforsecurity=False).digest() for text in texts)
    return np.frombuffer(joined, ">u8").reshape(-1, 2).astype(np.uint64)


def join(parts: Sequence[Rows]) -> Rows:
    """The samples of several shards as one."""
    ends, total = [], 0
    for part in parts:
        ends.append(part.name_end + total)
        total += len(part.names)
    joined = [np.concatenate([getattr(part, field) for part in parts]) for field in Rows._fields]
    return Rows(*joined)._replace(name_end=np.concatenate(ends))


def _show(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _places(root: epath.Path) -> list[epath.Path]:
    """Where an index may be: beside the shards, else in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    digest = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    return [root / FILE, epath.Path(cache) / "vit_jax" / "tar_index" / f"{digest}.npz"]


def _load(root: epath.Path) -> dict[str, Shard]:
    """What is stored, of both places; what cannot be read counts as not there."""
    shards: dict[str, Shard] = {}
    for place in reversed(_places(root)):
        try:
            with place.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            shards |= _unpack(arrays)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            continue
    return shards


def _unpack(arrays: Mapping[str, np.ndarray]) -> dict[str, Shard]:
    if int(arrays["version"]) != VERSION:
        return {}
    shards, row, byte = {}, 0, 0
    table = zip(arrays["shards"], arrays["counts"], arrays["bytes"], arrays["stamps"], strict=True)
    for name, count, length, stamp in table:
        fields = [arrays[field][row : row + count] for field in Rows._fields[:-1]]
        rows = Rows._make([*fields, arrays["names"][byte : byte + length]])
        shards[str(name)] = Shard(rows._replace(name_end=rows.name_end - byte), (), (int(stamp[0]), int(stamp[1])))
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
