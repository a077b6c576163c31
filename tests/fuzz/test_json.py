"""Fuzz of the one reader of JSON."""

import json

import mutations

from vit_jax.files import read_json
from vit_jax.types import UserError

GOOD = {"format": 1, "splits": [{"name": "train", "shardLengths": ["7", "9"]}], "names": {"a": None, "ü": 1.5e-3}}


def test_damaged_json_is_an_object_or_one_error(tmp_path):
    for number, rng in mutations.cases():
        if number % 2:
            damaged = mutations.mutate(json.dumps(GOOD, ensure_ascii=False).encode(), rng)
        else:
            damaged = json.dumps(mutations.mutate_json(GOOD, rng)).encode()
        (tmp_path / "x.json").write_bytes(damaged)
        with mutations.judged(number, UserError):
            assert isinstance(read_json(tmp_path / "x.json"), dict)
