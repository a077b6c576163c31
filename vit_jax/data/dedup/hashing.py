"""Perceptual hashes: 128 bits of an image that survive re-encoding, resizing and a change of light, so that copies of one
picture are found without comparing pixels (arXiv 2010.11929, section 4.1: pre-training data is de-duplicated against the
downstream test sets)."""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vit_jax.data.dedup.exclusion import probe
from vit_jax.data.image.decode import Image
from vit_jax.data.image.encoded import CorruptImage
from vit_jax.data.source import Source
from vit_jax.types import UserError

SIDE = 32  # pixels of the thumbnail that is hashed and compared
PART = 8192  # examples hashed between two writes to the cache
CHUNK = 64  # examples that a thread reads at once
LEAST_CONTRAST = 2.0  # standard deviation, gray levels; below it a hash is noise
ALGORITHM = "sign of 64 low DCT frequencies of 32x32 gray, gradient of 8x9; 2"  # another one is another cache

READY, BLANK, CORRUPT = range(3)  # states of an image
WORDS = 2
BITS = 64 * WORDS
# Hash of an image and of its mirror image.
HASHES = np.dtype([("plain", "<u8", (WORDS,)), ("mirror", "<u8", (WORDS,)), ("state", "u1")])

# The 64 lowest frequencies after the mean, by the sum of their (vertical, horizontal) orders.
_FREQUENCIES = np.array(sorted(((u, v) for u in range(16) for v in range(16)), key=lambda f: (f[0] + f[1], f[0]))[1:65])
# Mirroring an image changes the sign of every odd horizontal frequency.
_MIRROR = np.where(_FREQUENCIES[:, 1] % 2, -1.0, 1.0).astype(np.float32)


def thumbnail(image: Image) -> Image:
    """The whole image at 32 x 32, squashed; area averages, so that detail that a copy may have lost does not count.

    Args:
      image: uint8 (h, w, 3).

    Returns:
      uint8 (32, 32, 3).
    """
    h, w = image.shape[:2]
    kernel = cv2.INTER_AREA if min(h, w) >= SIDE else cv2.INTER_LINEAR
    return cv2.resize(image, (SIDE, SIDE), interpolation=kernel)  # type: ignore[return-value]


def hash_image(image: Image) -> Any:
    """Hashes one image.

    The first word holds the signs of the 64 lowest frequencies but the mean, which no change of brightness or contrast
    alters; the second whether each of 8 x 8 cells is darker than its right neighbour. `mirror` is the hash of the image with
    left and right exchanged.

    Args:
      image: uint8 (h, w, 3).

    Returns:
      A record of HASHES; state BLANK for an image of (nearly) one colour, whose hash is noise.
    """
    record = np.zeros((), HASHES)
    gray = cv2.cvtColor(thumbnail(image), cv2.COLOR_RGB2GRAY).astype(np.float32)
    if gray.std() < LEAST_CONTRAST:
        record["state"] = BLANK
        return record[()]
    waves = cv2.dct(gray)[_FREQUENCIES[:, 0], _FREQUENCIES[:, 1]]
    cells = cv2.resize(gray, (9, 8), interpolation=cv2.INTER_AREA)
    mirrored = cells[:, ::-1]
    record["plain"] = _pack(waves > 0), _pack(cells[:, :-1] < cells[:, 1:])
    record["mirror"] = _pack(waves * _MIRROR > 0), _pack(mirrored[:, :-1] < mirrored[:, 1:])
    return record[()]


def _pack(bits: np.ndarray) -> np.uint64:
    return np.packbits(bits.ravel()).view("<u8")[0]


def hash_source(
    source: Source, cache: Path, *, threads: int = 2, progress: Callable[[int], None] = lambda done: None
) -> np.ndarray:
    """Hashes every example of a source, or reads the hashes that an earlier run wrote.

    Parts of 8,192 examples are written as they are done: an interrupted run continues at the first missing part, and a
    comparison with other test sets reuses them. The key of a cache is the name, split and size of a data set and the bytes of a
    few of its images; after a change of images in place, remove it by hand.

    Args:
      source: from `open_source`.
      cache: folder of hashes; each data set has a folder of its own in it.
      threads: that read, decode and hash.
      progress: called with the number of examples done, after every part.

    Returns:
      HASHES (n,), in the source's order.

    Raises:
      UserError: `cache` cannot be written.
    """
    cv2.setNumThreads(0)
    key = "\n".join([ALGORITHM, source.spec.name, source.spec.split, probe(source)])
    folder = cache / hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
    parts = [np.zeros(0, HASHES)]
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(source), PART):
            stop = min(start + PART, len(source))
            file = folder / f"{start:010}.npy"
            part = _read_part(file, stop - start)
            if part is None:
                chunks = [range(i, min(i + CHUNK, stop)) for i in range(start, stop, CHUNK)]
                part = np.concatenate(list(pool.map(functools.partial(_hash_chunk, source), chunks)))
                _write_part(file, part)
            parts.append(part)
            progress(stop)
    return np.concatenate(parts)


def _hash_chunk(source: Source, indices: Sequence[int]) -> np.ndarray:
    hashes = np.zeros(len(indices), HASHES)
    for row, (data, _, _) in enumerate(source.read_many(indices)):
        try:
            hashes[row] = hash_image(source.decode(data))
        except CorruptImage:
            hashes[row]["state"] = CORRUPT
    return hashes


def _read_part(file: Path, count: int) -> np.ndarray | None:
    try:
        part = np.load(file)
    except (OSError, ValueError, EOFError):  # missing, or cut short by a full disk
        return None
    return part if part.dtype == HASHES and part.shape == (count,) else None


def _write_part(file: Path, part: np.ndarray) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        with partial.open("wb") as opened:
            np.save(opened, part)
        partial.replace(file)
    except OSError as error:
        raise UserError(f"{file.parent} cannot be written: {error}; give another --to") from error
