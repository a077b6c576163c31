"""A source of two members works everywhere: in the loader, as a subset, in hashes and in exclusion lists."""

import pickle

import numpy as np
import pytest
from squares import Squares

from vit_jax.data.dedup.exclusion import example_ids
from vit_jax.data.dedup.hashing import BLANK, READY, hash_source
from vit_jax.data.image.decode import decode
from vit_jax.data.image.recipes import make_transform
from vit_jax.data.source import Origin, Source
from vit_jax.data.stream.loader import eval_batches


def test_spec_and_read_are_all_that_a_source_needs(tmp_path):
    source = pickle.loads(pickle.dumps(Squares()))
    assert (len(source), source.decode, source.checked, source.fingerprint()) == (6, decode, False, b"")
    assert source.origin() == Origin("train[2:8]", "")
    assert source.ids([0]) is None
    assert source.read_many([4, 1]) == [source.read(4), source.read(1)]
    (batch,) = eval_batches(source, make_transform("eval", (8, 8)), batch_size=6)
    assert (batch.target.tolist(), batch.image[3, 0, 0].tolist()) == ([0, 1, 2, 3, 4, 5], [120, 120, 120])
    assert hash_source(source, tmp_path)["state"].tolist() == [BLANK] + 5 * [READY]
    assert example_ids(source, [0, 5], {"train": 10}) == ["train#2", "train#7"]


def test_a_subset_keeps_what_its_source_can_do():
    class Named(Squares):
        checked = True

        def decode(self, data):
            return np.zeros((8, 8, 3), np.uint8)

        def ids(self, indices):
            return [f"{i}.png" for i in indices]

        def origin(self):
            return Origin("train", "photographs")

    some = Named().subset(np.array([5, 5, 0]))
    assert (len(some), some.checked, some.ids([0, 2])) == (3, True, ["5.png", "0.png"])
    assert some.origin() == Origin("", "photographs")  # no text of splits describes it
    assert [label for _, label, _ in some.read_many(range(3))] == [5, 5, 0]
    assert not some.decode(b"").any()


def test_a_source_without_read_says_so():
    with pytest.raises(NotImplementedError):
        Source().read(0)
