"""Pairs of images, one from a training set and one from a test set, that are copies of one picture: candidates by
perceptual hash, confirmed by their pixels (arXiv 2010.11929, section 4.1).

Source of the defaults: `python -m vit_jax.bench.duplicates --images=FOLDER` on 46 photographs (scikit-image's,
scikit-learn's, matplotlib's and those among Debian's desktop backgrounds) and their 3 x 3 tiles, 460 images.
Found of the copies: JPEG of quality 30, 64 x 64, 32 x 32, mirrored and gray 100%, brightness x 0.6 99.8%, x 1.4 (clipped)
94.1%, cropped to 95% of the area 97.0%, to 90% 83.0%, to 80% 15.9%, to 50% 1.3%. Of 103,500 pairs of different photographs'
images none is taken for copies (1 at a correlation of 0.7).
A wrong exclusion costs a training example; a missed
copy makes the test meaningless. So the defaults lean towards finding. Smaller crops need a checkpoint.
"""

from __future__ import annotations

import concurrent.futures
import functools

import cv2
import numpy as np

from vit_jax.data.dedup.hamming import find_pairs
from vit_jax.data.dedup.hashing import CHUNK, READY, SIDE, thumbnail
from vit_jax.data.image.decode import Image
from vit_jax.data.image.encoded import CorruptImage
from vit_jax.data.source import Source

RADIUS = 30  # bits of 128 in which the hashes of a copy may differ
CORRELATION = 0.75
BLUR = 4.0  # deviation, in pixels of a 32 x 32 thumbnail, of what counts as background
ALIGN_FROM, ALIGNED = 0.1, 0.95  # correlations between which a copy may be a part, and is aligned
MOST_STRETCH, MOST_TURN, MOST_MOVE = 0.13, 0.03, 2.5  # of an alignment: shares of the size, pixels of 32
TRAIN_AT_ONCE = 100_000  # training images whose thumbnails are in memory, 100 MB

PAIRS = np.dtype([("train", "<i8"), ("test", "<i8"), ("distance", "u1"), ("correlation", "<f4"), ("cosine", "<f4")])
UNKNOWN_DISTANCE = 255  # of a pair that hashes did not find


def find_candidates(train: np.ndarray, test: np.ndarray, radius: int = RADIUS, *, threads: int = 2) -> np.ndarray:
    """Pairs whose hashes are near, as the image is or mirrored.

    Args:
      train: HASHES (n,).
      test: HASHES (m,).
      radius: bits that may differ; below 0 for no pairs.
      threads: that compare.

    Returns:
      PAIRS (p,), by train and then test, each pair once with its least distance; correlation and cosine are NaN.

    Raises:
      UserError: too many.
    """
    rows, columns = (np.flatnonzero(side["state"] == READY) for side in (train, test))
    parts = [np.zeros(0, PAIRS)]
    for orientation in ("plain", "mirror"):
        i, j, distance = find_pairs(train["plain"][rows], test[orientation][columns], radius, threads=threads)
        part = np.zeros(len(i), PAIRS)
        part["train"], part["test"], part["distance"] = rows[i], columns[j], distance
        parts.append(part)
    return merge(parts)


def merge(parts: list[np.ndarray]) -> np.ndarray:
    """Joins PAIRS: each pair once, with its least distance and its greatest cosine."""
    pairs = np.concatenate(parts)
    pairs["correlation"] = np.nan
    pairs["cosine"] = np.where(pairs["cosine"] == 0, np.nan, pairs["cosine"])
    order = np.lexsort((pairs["distance"], pairs["test"], pairs["train"]))
    pairs = pairs[order]
    first = np.ones(len(pairs), bool)
    first[1:] = (pairs["train"][1:] != pairs["train"][:-1]) | (pairs["test"][1:] != pairs["test"][:-1])
    group = np.cumsum(first) - 1
    merged = pairs[first]
    cosine = np.full(len(merged), -np.inf, np.float32)
    np.maximum.at(cosine, group, np.nan_to_num(pairs["cosine"], nan=-np.inf))
    merged["cosine"] = np.where(np.isneginf(cosine), np.nan, cosine)
    return merged


def correlate(train: Source, test: Source, pairs: np.ndarray, *, threads: int = 2) -> np.ndarray:
    """Compares the pixels of pairs: see `correlation`. Each image is decoded once.

    Args:
      train: source of `pairs["train"]`.
      test: source of `pairs["test"]`.
      pairs: PAIRS (p,), sorted by train.
      threads: that decode.

    Returns:
      float32 (p,) in [-1, 1]; -1 where an image does not decode.
    """
    correlations = np.full(len(pairs), -1.0, np.float32)
    right = thumbnails(test, np.unique(pairs["test"]), threads)
    trains = np.unique(pairs["train"])
    for start in range(0, len(trains), TRAIN_AT_ONCE):
        chosen = trains[start : start + TRAIN_AT_ONCE]
        left = thumbnails(train, chosen, threads)
        low, high = np.searchsorted(pairs["train"], [chosen[0], chosen[-1] + 1])
        for row in range(low, high):
            a, b = left.get(int(pairs["train"][row])), right.get(int(pairs["test"][row]))
            if a is not None and b is not None:
                correlations[row] = correlation(a, b)
    return correlations


def thumbnails(source: Source, indices: np.ndarray, threads: int) -> dict[int, Image]:
    """Thumbnails (32, 32, 3) of some examples by index, without those that do not decode."""
    cv2.setNumThreads(0)
    chunks = [indices[i : i + CHUNK].tolist() for i in range(0, len(indices), CHUNK)]
    images: dict[int, Image] = {}
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for part in pool.map(functools.partial(_shrink, source), chunks):
            images |= part
    return images


def _shrink(source: Source, indices: list[int]) -> dict[int, Image]:
    shrunk = {}
    for index, (data, _, _) in zip(indices, source.read_many(indices), strict=True):
        try:
            shrunk[index] = thumbnail(source.decode(data))
        except CorruptImage:
            continue
    return shrunk


def correlation(a: Image, b: Image) -> float:
    """Normalised cross-correlation of the detail of two thumbnails, the second as it is or mirrored.

    Detail is gray less its blur: two skies, or two blurred backgrounds, correlate before and not after. Where they agree
    a little, the second is first stretched and moved onto the first, as the copy of a part of it would have to be.

    Args:
      a: uint8 (32, 32, 3).
      b: uint8 (32, 32, 3).

    Returns:
      The larger of the two, in [-1, 1].

    Source: alignment as G. Evangelidis and E. Psarakis, "Parametric image alignment using enhanced correlation
      coefficient maximization", 2008, by OpenCV.
    """
    left, right = _detail(a), _detail(b)
    both = (right, np.ascontiguousarray(right[:, ::-1]))
    plain = [float((left * other).sum()) for other in both]
    best = max(plain)
    if ALIGN_FROM <= best < ALIGNED:
        best = max(best, _aligned(left, both[plain.index(best)]))
    return best


def _aligned(left: np.ndarray, right: np.ndarray) -> float:
    """Correlation once `right` is moved onto `left`; -1 if that takes more than the copy of nine tenths would need."""
    warp, everywhere = np.eye(2, 3, dtype=np.float32), np.ones((SIDE, SIDE), np.uint8)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-4)
    try:
        score, transform = cv2.findTransformECC(left, right, warp, cv2.MOTION_AFFINE, stop, everywhere, 3)
    except cv2.error:  # it does not converge
        return -1.0
    warp = np.asarray(transform)
    scale, turn = np.diag(warp[:, :2]), np.abs([warp[0, 1], warp[1, 0]])
    center = np.abs(warp @ [(SIDE - 1) / 2, (SIDE - 1) / 2, 1] - (SIDE - 1) / 2)
    small = np.abs(scale - 1).max() < MOST_STRETCH and turn.max() < MOST_TURN and center.max() < MOST_MOVE
    return float(score) if small else -1.0


def _detail(image: Image) -> np.ndarray:
    """Gray less its blur, of mean 0 and norm 1."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    detail = gray - cv2.GaussianBlur(gray, (0, 0), BLUR)
    detail -= detail.mean()
    return detail / max(float(np.linalg.norm(detail)), 1e-6)
