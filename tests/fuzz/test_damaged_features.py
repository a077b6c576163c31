"""Fuzz of the reader of stored features: a damaged folder is read, or refused in one message."""

import json

import mutations
import numpy as np
import pytest

from vit_jax.evals.stored import DESCRIPTION, Stored, read_features, shard_path, write_shard
from vit_jax.types import UserError

FACTS = {
    "num_examples": 5,
    "shard_size": 3,
    "fingerprint": "x",
    "layer": "pooled",
    "pool": "none",
    "classes": ["a", "b"],
}


@pytest.mark.parametrize("format", ["safetensors", "npz"])
def test_damaged_features_are_read_or_refused(tmp_path, format):
    facts = FACTS | {"format": format}
    paths = [shard_path(tmp_path, facts, i) for i in range(2)]
    for path, n in zip(paths, (3, 2), strict=True):
        arrays = {"features": np.ones((n, 4), np.float32), "index": np.arange(n), "labels": np.zeros(n, np.int32)}
        write_shard(path, arrays, [f"{i}.jpg" for i in range(n)])
    whole = paths[1].read_bytes()
    (tmp_path / DESCRIPTION).write_text(json.dumps(facts))
    assert len(read_features(tmp_path).ids) == 5
    for number, rng in mutations.cases():
        damages_shard = number % 2
        paths[1].write_bytes(mutations.mutate(whole, rng) if damages_shard else whole)
        damaged = facts if damages_shard else mutations.mutate_json(facts, rng)
        (tmp_path / DESCRIPTION).write_text(json.dumps(damaged))
        with mutations.judged(number, UserError):
            assert isinstance(read_features(tmp_path), Stored)
