"""All pairs of hashes that differ in few bits, exactly.

Every pair is compared, in blocks that stay in a core's cache: a few instructions a pair leave nothing for an index to
save at the radii of interest (bands of 128 bits that find radius 30 for certain have 4 bits, and find everything).
"""

from __future__ import annotations

import concurrent.futures

import numpy as np

from vit_jax.types import UserError

ROWS, COLUMNS = 16, 4096  # hashes compared at once: 512 KiB of differences
LIMIT = 20_000_000  # pairs kept


def find_pairs(
    left: np.ndarray, right: np.ndarray, radius: int, *, threads: int = 2, limit: int = LIMIT
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the pairs within a Hamming distance.

    1,000,000 x 10,000 hashes of 128 bits take 16 s on one core and 65 MB (`tests/data/test_hamming.py` prints
    what a hundredth takes).

    Args:
      left: uint64 (n, words).
      right: uint64 (m, words).
      radius: bits that may differ in all words together; below 0 for no pairs. At most 3 words.
      threads: that compare.
      limit: pairs that are kept at most.

    Returns:
      (index into left int64 (p,), index into right int64 (p,), distance uint8 (p,)), by left and then right.

    Raises:
      UserError: more pairs than `limit`.
    """
    assert left.shape[1] == right.shape[1] <= 3  # counts are uint8
    left, right = left.T.astype(np.uint64, order="C"), right.T.astype(np.uint64, order="C")  # words n
    starts = range(0, left.shape[1], COLUMNS)
    parts: list[tuple[np.ndarray, ...]] = []
    count = 0
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for part in pool.map(
            lambda start: _compare(left[:, start : start + COLUMNS], right, radius, start, limit), starts
        ):
            parts.append(part)
            count += len(part[0])
            if count > limit:
                pool.shutdown(cancel_futures=True)
                raise UserError(
                    f"more than {limit:,} pairs of hashes are within {radius} bits of each other: these images are too "
                    f"much alike for a hash; expected few pairs. Lower --radius (now {radius}), or compare with a "
                    "--checkpoint and --neighbours alone (--radius=-1)"
                )
    empty = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8)
    i, j, distance = (np.concatenate(rows) for rows in zip(*(parts or [empty]), strict=True))
    return i, j, distance


def _compare(left: np.ndarray, right: np.ndarray, radius: int, offset: int, limit: int) -> tuple[np.ndarray, ...]:
    """`find_pairs` of one block of the left side, which starts at `offset`; it ends early above `limit`."""
    differs = np.empty((ROWS, left.shape[1]), np.uint64)
    bits = np.empty((2, ROWS, left.shape[1]), np.uint8)
    pieces, count = [], 0
    for start in range(0, right.shape[1], ROWS):
        rows = right[:, start : start + ROWS, None]
        difference, (near, more) = differs[: rows.shape[1]], bits[:, : rows.shape[1]]
        for word, (a, b) in enumerate(zip(left, rows, strict=True)):
            np.bitwise_xor(b, a, out=difference)
            np.bitwise_count(difference, out=more if word else near)
            if word:
                near += more
        if near.min() <= radius:
            j, i = np.nonzero(near <= radius)
            pieces.append((i + offset, j + start, near[j, i]))
            count += len(i)
            if count > limit:
                break
    if not pieces:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8)
    i, j, distance = (np.concatenate(column) for column in zip(*pieces, strict=True))
    order = np.lexsort((j, i))
    return i[order], j[order], distance[order]
