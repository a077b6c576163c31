"""Finds the samples of a tar shard from its headers.

WebDataset's convention: the files of a sample share their path up to the first dot of the base name (the key); the rest
says what each is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vit_jax.data.formats.tar import LINK, REGULAR, DamagedTar, Member, TarFile, iter_members
from vit_jax.files import MAX_JSON_BYTES
from vit_jax.types import printable

# If a sample has several images, the first in this order is read.
IMAGES = (b"jpg", b"jpeg", b"png", b"webp", b"bmp", b"tif", b"tiff", b"gif")
MAX_LABEL = 10**6  # a larger one is a mistake: each class is a row of the head


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
        kept = []
        for key, members in samples.items():
            image, label, problem = _read_sample(file, members)
            if problem:
                problems.append(f"{_show(key)}: {problem}")
            elif image:
                kept.append((key, image, label))
        if not samples:
            problems.append("holds no samples")
    except OSError as error:
        return Shard(_to_rows([], split), (f"cannot be read ({error.strerror or error})",), stamp)
    except DamagedTar as error:
        return Shard(_to_rows([], split), (str(error),), stamp)
    finally:
        file.close()
    return Shard(_to_rows(kept, split), tuple(problems), stamp)


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
        return None, 0, f"no image (.{', .'.join(map(_show, IMAGES))}) among .{', .'.join(map(_show, members))}"
    if image.kind == LINK:
        return None, 0, "its image is a link; pack with `tar --hard-dereference --dereference`"
    if b"cls" in members:
        text = file.read(members[b"cls"].offset, min(members[b"cls"].size, 64))
        number = int(text) if re.fullmatch(rb"\s*\d{1,9}\s*", text) else None
        if number is None or number >= MAX_LABEL:
            return None, 0, f".cls holds {_show(text[:40])!r}, expected an integer from 0 to {MAX_LABEL - 1:,}"
        return image, number, ""
    if b"json" not in members:
        return None, 0, f"no label (.cls, or .json with `label`) beside .{', .'.join(map(_show, members))}"
    try:
        if members[b"json"].size > MAX_JSON_BYTES:
            raise ValueError(f"{members[b'json'].size:,} bytes, expected at most {MAX_JSON_BYTES:,}")
        content = json.loads(file.read(members[b"json"].offset, members[b"json"].size))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are such
        return None, 0, f".json cannot be read ({'nested too deeply' if isinstance(error, RecursionError) else error})"
    label = content.get("label") if isinstance(content, dict) else None
    if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < MAX_LABEL:
        return None, 0, f".json has the label {label!r}, expected an integer from 0 to {MAX_LABEL - 1:,}"
    return image, label, ""


def _to_rows(samples: Sequence[tuple[bytes, Member, int]], split: str) -> Rows:
    start = split.encode() + b"/"
    names = [image.name.removeprefix(b"./") for _, image, _ in samples]
    return Rows(
        np.array([image.offset for _, image, _ in samples], np.int64),
        np.array([image.size for _, image, _ in samples], np.int64),
        np.array([label for *_, label in samples], np.int32),
        _digests([name if name.startswith(start) else start + name for name in names]),
        _digests([key for key, *_ in samples]),
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


def could_be_scanned(rows: Rows, count: int, length: int) -> bool:
    """Whether stored samples are of the types, shapes and ranges that `scan_shard` gives; who altered them may lie within."""
    kinds = [(field.dtype, field.shape) for field in rows]
    expected = [(field.dtype, (count, *field.shape[1:])) for field in _to_rows([], "")[:-1]] + [(np.uint8, (length,))]
    if count < 1 or length < 0 or kinds != expected:
        return False
    ends = np.concatenate([[0], rows.name_end])
    return bool(
        (rows.offset >= 0).all()
        and (rows.size >= 0).all()
        and (rows.label >= 0).all()
        and (rows.label < MAX_LABEL).all()
        and (np.diff(ends) >= 0).all()
        and ends[-1] == length
    )


def _show(name: bytes) -> str:
    return printable(name.decode("utf-8", "surrogateescape"))
