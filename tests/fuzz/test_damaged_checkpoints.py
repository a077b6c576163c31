"""Fuzz of everything that a checkpoint is read from: it loads, or is one UserError that a terminal can show."""

import json
import re
import shutil
from pathlib import Path

import mutations
import numpy_vit
import pytest
from checkpoints import copy_golden, flat, golden_tensors, same_bits, save_npz, save_safetensors

from vit_jax.convert.load import load
from vit_jax.types import UserError

TENSORS = numpy_vit.draw_params(depth=1)
OWN = {"vit_jax": {"model": {"name": "vit", "num_classes": 5, "patch_size": [4, 6], "width": 8, "depth": 1}}}
OWN["vit_jax"]["model"] |= {"mlp_dim": 12, "num_heads": 2, "gelu": "erf", "norm_eps": 1e-5, "pool": "token"}
OWN["vit_jax"] |= {"grid": [2, 2], "class_names": ["a", "b", "c", "d", "e"]}


def attempt(number, path, **overrides):
    """What a damaged checkpoint of a case loads as; None if it was refused, in a message of printable text."""
    message = ""
    with mutations.judged(number):
        try:
            return load(str(path), **overrides)
        except UserError as error:
            message = str(error)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", message), number
    assert 0 < len(message) < 25_000, number
    return None


def damaged_json(place, number, rng):
    """Damages a JSON file, as text or as a value."""
    if number % 2:
        place.write_bytes(mutations.mutate(place.read_bytes(), rng))
    else:
        place.write_text(json.dumps(mutations.mutate_json(json.loads(place.read_text()), rng)))


def test_a_damaged_npz_loads_to_the_bit_or_is_refused(tmp_path):
    whole = Path(save_npz(tmp_path / "whole.npz", TENSORS)).read_bytes()
    for number, rng in mutations.cases():
        (tmp_path / "bad.npz").write_bytes(mutations.mutate(whole, rng))
        if loaded := attempt(number, tmp_path / "bad.npz"):
            same_bits(flat(loaded), TENSORS)  # a zip has checksums


def test_a_damaged_description_beside_an_npz_is_refused_or_makes_sense(tmp_path):
    path = save_npz(tmp_path / "vit.npz", TENSORS)
    for number, rng in mutations.cases():
        (tmp_path / "vit.json").write_text(json.dumps(OWN))
        damaged_json(tmp_path / "vit.json", number, rng)
        if loaded := attempt(number, path):
            same_bits(flat(loaded), TENSORS)


@pytest.mark.parametrize("name", ["hf_classifier", "hf_masked", "hf_mae", "timm_token"])
def test_a_damaged_safetensors_file_loads_or_is_refused(tmp_path, name):
    whole = Path(save_safetensors(tmp_path / "whole", golden_tensors(name))).read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for number, rng in mutations.cases():
        # All that can go wrong is in the first tenth of the file; behind it are values.
        damaged = mutations.mutate(whole[:header], rng) + whole[header:] if number % 3 else mutations.mutate(whole, rng)
        (tmp_path / "bad").write_bytes(damaged)
        attempt(number, tmp_path / "bad", num_heads=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hf_classifier", "hf_encoder", "hf_masked", "hf_mae", "timm_token", "timm_average"])
def test_a_damaged_config_is_refused_or_makes_sense(tmp_path, name):
    folder = Path(copy_golden(name, tmp_path / name))
    config = (folder / "config.json").read_text()
    for number, rng in mutations.cases():
        (folder / "config.json").write_text(config)
        damaged_json(folder / "config.json", number, rng)
        attempt(number, folder)


def test_a_damaged_index_of_shards_is_refused_or_loads_to_the_bit(tmp_path):
    tensors = golden_tensors("hf_classifier")
    names = sorted(tensors)
    folder = Path(copy_golden("hf_classifier", tmp_path / "hf"))
    expected = flat(load(str(folder)))
    shutil.move(folder / "model.safetensors", tmp_path / "elsewhere")
    index = {"metadata": {"total_size": 1}, "weight_map": {}}
    for shard, part in (("a.safetensors", names[:20]), ("b.safetensors", names[20:])):
        save_safetensors(folder / shard, {key: tensors[key] for key in part})
        index["weight_map"] |= dict.fromkeys(part, shard)
    for number, rng in mutations.cases():
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        damaged_json(folder / "model.safetensors.index.json", number, rng)
        if loaded := attempt(number, folder):
            same_bits(flat(loaded), expected)
