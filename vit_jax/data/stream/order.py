"""The order of examples: the keys of a batch are computed from its number alone, so that a stream can be entered anywhere.

The order is implemented here and depends on no library's version: a run that is restarted after an upgrade resumes unchanged.
"""

from __future__ import annotations

import math
import sys

import numpy as np

from vit_jax.data.stream.reader import PADDING

ROUNDS = (
    6  # of the Feistel network, where four suffice in theory; halves of one or two bits need more to reach all orders
)


def shuffle(places: np.ndarray, epochs: np.ndarray, size: int, seed: int) -> np.ndarray:
    """The order of examples in each epoch: for one epoch, a permutation of 0..size-1 that is not stored anywhere.

    A Feistel network permutes the numbers of as many bits as `size` needs; a number outside is permuted again until it is inside.

    Args:
      places: int (b,), 0 <= place < size.
      epochs: int (b,), the epoch of each.
      size: of the data set.
      seed: 0 or more.

    Returns:
      int64 (b,), the example at each place.

    Source: Luby and Rackoff 1988; cycle walking: Black and Rogaway 2002.
    """
    bits = (size - 1).bit_length()
    low_bits = np.uint64((bits + 1) // 2)
    low_mask, high_mask = (np.uint64((1 << n) - 1) for n in ((bits + 1) // 2, bits // 2))
    # Hashing seed and epoch together keeps the epochs of one seed from being those of another, shifted.
    start = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    rounds = np.arange(1, max(ROUNDS, 24 - 2 * bits) + 1, dtype=np.uint64)[:, None]
    keys = _mix(start + _mix(epochs.astype(np.uint64)) + rounds)
    index, outside = places.astype(np.uint64), np.arange(len(places))
    while len(outside):
        low, high = index[outside] & low_mask, index[outside] >> low_bits
        for even, odd in zip(keys[::2, outside], keys[1::2, outside], strict=True):
            low ^= _mix(high + even) & low_mask
            high ^= _mix(low + odd) & high_mask
        index[outside] = high << low_bits | low
        outside = outside[index[outside] >= size]
    return index.astype(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    """uint64 to uint64; every bit of the argument changes about half of the result's. Source: SplitMix64, Steele 2014."""
    x = (x + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def size_at(step: int, count: int, seed: int) -> int:
    """Which of `count` sizes of images the batch of a step has: each round of `count` steps takes every size once, in an order
    drawn for the round. A function of (seed, step) alone, so all processes agree, and a run can resume anywhere."""
    turn, place = divmod(int(step), count)
    return int(shuffle(np.array([place]), np.array([turn]), count, seed)[0])


class TrainKeys:
    """Keys (epoch, example index) of batch i of one process: every `process_count`-th place of the endless global stream."""

    def __init__(self, num_examples: int, batch_size: int, process_index: int, process_count: int, seed: int):
        self._num_examples, self._batch_size, self._seed = num_examples, batch_size, seed
        self._rows = np.arange(process_index, batch_size, process_count)

    def __len__(self) -> int:
        return sys.maxsize // self._batch_size

    def __getitem__(self, step: int) -> np.ndarray:
        epochs, places = np.divmod(int(step) * self._batch_size + self._rows, self._num_examples)
        return np.stack([epochs, shuffle(places, epochs, self._num_examples, self._seed)], axis=1)


class SizedKeys:
    """(which of `count` sizes, keys) of batch i of one process."""

    def __init__(self, keys: TrainKeys, count: int, seed: int):
        self._keys, self._count, self._seed = keys, count, seed

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, step: int) -> tuple[int, np.ndarray]:
        return size_at(step, self._count, self._seed), self._keys[step]


class EvalKeys:
    """Keys of batch i of one process: a contiguous block of the data set, then padding."""

    def __init__(self, num_examples: int, batch_size: int, share: int, process_index: int):
        self._num_examples, self._batch_size, self._share = num_examples, batch_size, share
        self._offset = process_index * share

    def __len__(self) -> int:
        return math.ceil(self._num_examples / self._batch_size)

    def __getitem__(self, step: int) -> np.ndarray:
        index = int(step) * self._batch_size + self._offset + np.arange(self._share, dtype=np.int64)
        index[index >= self._num_examples] = PADDING
        return np.stack([np.zeros_like(index), index], axis=1)
