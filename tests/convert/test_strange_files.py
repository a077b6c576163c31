"""What stands where a checkpoint's file should stand: refused at once, in a message that a terminal can show."""

import json
import os
import re
import struct

import numpy as np
import numpy_vit
import pytest
from checkpoints import copy_golden, golden_tensors, save_npz, save_safetensors
from damaged import TENSORS, attempt, npz_with, safetensors_of, sharded

from vit_jax.convert.load import load
from vit_jax.convert.open import open_checkpoint
from vit_jax.types import UserError

# Files that are none


def make_pipe(place):
    os.mkfifo(place)


def make_device(place):
    place.symlink_to("/dev/zero")


def make_folder(place):
    place.mkdir()


def make_holes(place):
    with open(place, "wb") as file:
        file.truncate(2**43)


NOT_FILES = {
    "is a named pipe": make_pipe,
    "is a device": make_device,
    "is a folder": make_folder,
    "bytes": make_holes,
}


def folder_with(folder, name, make):
    """A Hugging Face folder, sharded where a shard or the index is asked for, one file of which `make` made."""
    tensors = golden_tensors("hf_classifier")
    if name in ("model.safetensors.index.json", "one.safetensors"):
        sharded(folder, {"weight_map": dict.fromkeys(tensors, "one.safetensors")}, one=tensors)
    else:
        copy_golden("hf_classifier", folder)
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    return folder


@pytest.mark.parametrize("kind", NOT_FILES)
@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "config.json",
        "preprocessor_config.json",
        "model.safetensors.index.json",
        "one.safetensors",
    ],
)
def test_a_folder_with_something_else_for_a_file_is_refused_at_once(tmp_path, name, kind):
    message = attempt(folder_with(tmp_path / "hf", name, NOT_FILES[kind]), {})
    assert f"{name} " in message
    assert kind in message


@pytest.mark.parametrize("kind", [kind for kind in NOT_FILES if kind != "is a folder"])
@pytest.mark.parametrize("name", ["vit.npz", "model.safetensors", "vit"])
def test_something_else_for_a_checkpoint_is_refused_at_once(tmp_path, name, kind):
    NOT_FILES[kind](tmp_path / name)
    message = attempt(tmp_path / name, {})
    assert f"{tmp_path / name} " in message
    assert kind in message


@pytest.mark.parametrize("kind", NOT_FILES)
def test_something_else_for_the_json_beside_an_npz_is_refused_at_once(tmp_path, kind):
    path = save_npz(tmp_path / "vit.npz", TENSORS)
    NOT_FILES[kind](tmp_path / "vit.json")
    message = attempt(path, TENSORS)
    assert f"{tmp_path / 'vit.json'} " in message
    assert kind in message


def test_a_safetensors_file_of_terabytes_of_holes_is_refused_before_it_is_read(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**41], "data_offsets": [0, 2**43]}}).encode()
    with open(tmp_path / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 2**43)
    message = attempt(tmp_path / "model.safetensors", {})
    assert "has 8,796,093,022,301 bytes, of which" in message
    assert "on disk; expected a whole file" in message


# Values and names


@pytest.mark.slow
@pytest.mark.parametrize("form", ["npz", "safetensors"])
def test_weights_that_are_no_numbers_are_refused_and_can_still_be_looked_at(tmp_path, form):
    name = "head/bias" if form == "npz" else "classifier.bias"
    tensors = TENSORS if form == "npz" else golden_tensors("hf_classifier")
    broken = tensors | {name: tensors[name] * np.float32(np.nan)}
    save = save_npz if form == "npz" else save_safetensors
    path = save(tmp_path / "model.safetensors", broken)
    with pytest.raises(UserError, match=rf"NaN or infinite, and nothing was loaded(.|\n)*  {name}: \d of \d values"):
        load(path, num_heads=2 if form == "npz" else 3)
    assert np.isnan(open_checkpoint(path, num_heads=3).tensors["head/bias"]).all()
    assert load(path, num_classes=0, num_heads=2 if form == "npz" else 3).settings["num_classes"] == 0


@pytest.mark.slow
def test_names_of_tensors_do_nothing_to_the_terminal_and_do_not_fill_it(tmp_path):
    evil = {f"\x1b]0;{i}\x07\n{'x' * 1000}": np.ones(2, np.float32) for i in range(3000)}
    (tmp_path / "vit.st").write_bytes(safetensors_of(golden_tensors("timm_token") | evil))
    save_npz(tmp_path / "vit.npz", TENSORS | {name: np.ones(2, "S4") for name in evil})
    bad = {f"{i}\x1b": b"" for i in range(3000)}
    npz_with(tmp_path / "bad.npz", **bad)
    only = numpy_vit.draw(dict.fromkeys(list(evil)[:5], (2,)), 0)
    save_npz(tmp_path / "only.npz", only)
    for name in ("vit.st", "vit.npz", "bad.npz", "only.npz"):
        message = attempt(tmp_path / name, {}, num_heads=3 if name == "vit.st" else 2)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", message)
        assert len(message) < 10_000, name
        assert "x1b" in message
