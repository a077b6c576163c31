"""Near hashes: the same as comparing every pair the slow way."""

import time

import numpy as np
import pytest

from vit_jax.data.dedup import hamming
from vit_jax.data.dedup.hamming import find_pairs
from vit_jax.types import UserError


def random_hashes(rng, n, words):
    return rng.integers(0, 2**64, (n, words), dtype=np.uint64)


def brute(left, right, radius):
    found = []
    for i, a in enumerate(left.tolist()):
        for j, b in enumerate(right.tolist()):
            distance = sum((x ^ y).bit_count() for x, y in zip(a, b, strict=True))
            if distance <= radius:
                found.append((i, j, distance))
    return found


@pytest.mark.parametrize("words", [1, 2])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_pair_within_the_radius_is_found_once(words, threads, monkeypatch):
    monkeypatch.setattr(hamming, "ROWS", 7)  # blocks that do not divide the sizes
    monkeypatch.setattr(hamming, "COLUMNS", 40)
    rng = np.random.default_rng(words)
    left, right = random_hashes(rng, 130, words), random_hashes(rng, 45, words)
    for i, j, bits in ((0, 0, 0), (39, 6, 3), (40, 7, 10), (129, 44, 12), (128, 0, 13)):  # on the blocks' borders
        left[i] = right[j]
        for bit in rng.permutation(64)[:bits]:
            left[i, -1] ^= np.uint64(1) << np.uint64(bit)
    for radius in (-1, 0, 12, 26 * words):
        found = [tuple(map(int, row)) for row in zip(*find_pairs(left, right, radius, threads=threads), strict=True)]
        assert found == brute(left, right, radius)
    assert len(brute(left, right, 12)) == 4


def test_nothing_to_compare_gives_no_pairs():
    some = random_hashes(np.random.default_rng(0), 5, 2)
    for left, right in ((some[:0], some), (some, some[:0])):
        assert [len(column) for column in find_pairs(left, right, 128)] == [0, 0, 0]


def test_too_many_pairs_are_refused_before_they_fill_the_memory():
    same = np.zeros((5000, 2), np.uint64)
    with pytest.raises(UserError, match=r"more than 1,000 pairs .* within 30 bits .*Lower --radius"):
        find_pairs(same, same, 30, limit=1000)


def test_a_hundredth_of_a_million_by_ten_thousand():
    rng = np.random.default_rng(0)
    left, right = random_hashes(rng, 100_000, 2), random_hashes(rng, 1000, 2)
    left[77_777] = right[999]
    began = time.process_time()
    i, j, distance = find_pairs(left, right, 30)
    print(f"100,000 x 1,000 hashes: {time.process_time() - began:.2f} CPU-seconds")
    assert (i.tolist(), j.tolist(), distance.tolist()) == ([77_777], [999], [0])
