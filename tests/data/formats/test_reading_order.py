"""The order in which TFDS reads the files of a split."""

import numpy as np

from vit_jax.data.formats.reading_order import reading_order
from vit_jax.data.splits import parse_split


def test_the_first_thousand_are_those_that_tfds_reads_first():
    order = vtab_first(train=[24_300], test=[24_300], split="train+test[:50%]")
    # One file each, 16 examples of each in turn: 31 blocks and 8 examples of train, 31 blocks of test.
    assert int((order < 24_300).sum()) == 504
    assert int((order >= 24_300).sum()) == 496
    assert order[:33].tolist() == [*range(16), *range(24_300, 24_316), 16]
    # Seventeen files of 100 and more: 16 at a time, so that none of the last file is among the first 1,000.
    order = vtab_first(train=[100 + i for i in range(17)], split="train")
    starts = np.cumsum([0] + [100 + i for i in range(16)])
    assert order[:256].tolist() == [start + i for start in starts[:16] for i in range(16)]
    assert order.max() < starts[16]
    # A slice of files: the first begins in its middle.
    assert vtab_first(train=[10, 30], split="train[4:]")[:8].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def vtab_first(split, **shard_lengths):
    """Places of the first 1,000 examples of splits in files of these lengths."""
    counts = {name: sum(lengths) for name, lengths in shard_lengths.items()}
    return reading_order(parse_split("x", split, counts), shard_lengths)[:1000]


def test_a_file_that_ends_gives_its_turn_to_the_next(monkeypatch):
    from vit_jax.data.formats import reading_order as module

    monkeypatch.setattr(module, "FILES_AT_ONCE", 2)
    monkeypatch.setattr(module, "BLOCK", 2)
    slices, lengths = parse_split("x", "train", {"train": 11}), {"train": [3, 4, 2, 2]}
    # As tf.data.Dataset.range interleaves ranges 0-2, 3-6, 7-8 and 9-10 (cycle_length=2, block_length=2).
    assert reading_order(slices, lengths).tolist() == [0, 1, 3, 4, 2, 5, 6, 7, 8, 9, 10]
