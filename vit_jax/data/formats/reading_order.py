"""The order in which TFDS's own pipeline reads a split, which is not the order in which its files store it.

TFDS reads 16 files at a time, 16 examples of each in turn. So "the first 1,000 examples" of the VTAB benchmark's own script,
and the order from which big_vision draws few-shot examples, depend on how many files a split has and how long each of them is.
Source: `tfds.ReadConfig` (interleave_cycle_length, interleave_block_length) and the sequential `tf.data.Dataset.interleave`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vit_jax.data.splits import Slice

FILES_AT_ONCE = 16
BLOCK = 16  # examples


def reading_order(slices: Sequence[Slice], shard_lengths: Mapping[str, Sequence[int]]) -> np.ndarray:
    """The stored places of a split's examples, in the order in which TFDS would read them.

    Args:
      slices: of the stored splits, from `parse_split`.
      shard_lengths: examples in each file, by stored split.

    Returns:
      int64 (n,): a permutation of 0..n-1, which count through the slices one after the other.
    """
    files = []
    base = 0
    for part in slices:
        first = 0
        for length in shard_lengths[part.name]:
            low, high = max(first, part.start), min(first + length, part.stop)
            if low < high:
                files.append((base + low - part.start, base + high - part.start))
            first += length
        base += part.stop - part.start
    return _interleave(files)


def _interleave(files: Sequence[tuple[int, int]]) -> np.ndarray:
    """Reads files, each a range of places, in turns; a file that ends makes room for the next when its turn comes again."""
    waiting, blocks = list(reversed(files)), [np.empty(0, np.int64)]
    turns: list[tuple[int, int] | None] = [None] * FILES_AT_ONCE
    turn = 0
    while waiting or any(turns):
        if turns[turn] is None and waiting:
            turns[turn] = waiting.pop()
        if (span := turns[turn]) is not None:
            first, end = span
            stop = min(first + BLOCK, end)
            blocks.append(np.arange(first, stop))
            # Only a block that is cut short shows that the file has ended: one of exactly 16 keeps its turn once more.
            turns[turn] = (stop, end) if stop - first == BLOCK else None
        turn = (turn + 1) % FILES_AT_ONCE
    return np.concatenate(blocks)
