"""Opening a checkpoint: by its content and not by its name, and no pickle is ever executed."""

import math
import pickle
from pathlib import Path

import numpy as np
import numpy_options
import numpy_vit
import pytest
import test_mixer
from checkpoints import (
    agree,
    flat,
    golden_tensors,
    images,
    run,
    same_bits,
    save_npz,
    save_safetensors,
)
from damaged import TENSORS, Bomb, attempt, zip_of
from etils import epath
from flax.traverse_util import unflatten_dict

from vit_jax.convert.load import load
from vit_jax.train.checkpoint import write_params
from vit_jax.types import UserError


def test_pickles_are_refused_under_any_name_and_never_executed(tmp_path):
    bomb = Bomb(tmp_path / "exploded")
    for protocol in (2, 3, 4, 5):
        for name in ("pytorch_model.bin", "model.npz", "model.safetensors", "model.pt"):
            (tmp_path / name).write_bytes(pickle.dumps(bomb, protocol))
            assert "is a Python pickle" in attempt(tmp_path / name, TENSORS)
    for protocol in (0, 1):
        (tmp_path / "old.pt").write_bytes(pickle.dumps(bomb, protocol))
        assert "neither npz (PK) nor safetensors" in attempt(tmp_path / "old.pt", TENSORS)
    for member in ("archive/data.pkl", "data.pkl", "model/data.pkl"):
        zip_of(tmp_path / "model.pt", {member: pickle.dumps(bomb), "archive/data/0": b"1234"})
        assert "is a PyTorch file (a pickle in a zip)" in attempt(tmp_path / "model.pt", TENSORS)
    np.savez(tmp_path / "objects.npz", **TENSORS | {"cls": np.array([bomb], object)})
    assert "\n  cls: Object arrays cannot be loaded: they are pickles" in attempt(tmp_path / "objects.npz", TENSORS)
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "pytorch_model.bin").write_bytes(pickle.dumps(bomb))
    (tmp_path / "hub" / "config.json").write_text("{}")
    assert "pytorch_model.bin is a pickle, which is not read here" in attempt(tmp_path / "hub", TENSORS)
    assert not (tmp_path / "exploded").exists()


def test_an_error_page_is_called_what_it_is(tmp_path):
    for name in ("vit.npz", "model.safetensors"):
        (tmp_path / name).write_text("<!DOCTYPE html><html><body>404. Not Found</body></html>")
        assert "it may be an error page" in attempt(tmp_path / name, TENSORS)


def test_a_released_file_gives_the_papers_numbers(tmp_path):
    tensors = numpy_vit.draw_params(seed=5, representation=6)
    loaded = load(save_npz(tmp_path / "vit.npz", tensors))
    agree(run(loaded, images()).logits, numpy_vit.forward(tensors, images())["logits"])
    assert (loaded.settings["gelu"], loaded.settings["norm_eps"]) == ("tanh", 1e-6)


def test_a_mixers_file_gives_the_mixers_numbers(tmp_path):
    tensors = numpy_vit.draw(test_mixer.mixer_shapes(**test_mixer.TINY | {"tokens": 4}), seed=11)
    loaded = load(save_npz(tmp_path / "mixer.npz", tensors))
    agree(run(loaded, images()).logits, test_mixer.forward(tensors, images())["logits"])


def test_a_mixer_of_a_grid_that_is_not_square_needs_its_resolution(tmp_path):
    path = save_npz(tmp_path / "mixer.npz", numpy_vit.draw(test_mixer.mixer_shapes(**test_mixer.TINY), seed=11))
    with pytest.raises(UserError, match=r"mixer.npz has 6 patches, which is no square grid; give grid=\(gh, gw\)"):
        load(path)
    assert load(path, grid=(2, 3)).grid == (2, 3)


def test_a_file_is_what_it_holds_and_not_what_it_is_called(tmp_path):
    tensors = numpy_vit.draw_params()
    for name in ("weights.bin", "weights.safetensors", "weights"):
        loaded = load(save_npz(tmp_path / name, tensors))
        assert loaded.source.format == "npz"
        same_bits(flat(loaded), tensors)
    for name in ("vit.dat", "vit.npz", "vit"):
        loaded = load(save_safetensors(tmp_path / name, golden_tensors("hf_classifier")), num_heads=3)
        assert loaded.source.format == "hf"
    assert load(save_safetensors(tmp_path / "t.npz", golden_tensors("timm_token")), num_heads=3).source.format == "timm"


def test_a_run_of_ours_is_read_with_the_model_it_says(tmp_path):
    tensors = numpy_vit.draw_params(seed=13, pool="gap")
    model = {
        "name": "vit",
        "num_classes": 5,
        "patch_size": [4, 6],
        "width": 8,
        "depth": 2,
        "mlp_dim": 12,
        "num_heads": 2,
    }
    model |= {"pool": "gap", "gelu": "erf", "norm_eps": 1e-3, "stochastic_depth": 0.1}
    meta = {"config": {"model": model}, "grid": [2, 2], "class_names": ["ant", "bee", "cow", "dog", "elk"]}
    folder = write_params(epath.Path(tmp_path / "run"), unflatten_dict(tensors, sep="/"), meta)
    for path in (tmp_path / "run", folder):
        loaded = load(str(path))
        same_bits(flat(loaded), tensors)
        assert (loaded.source.format, loaded.grid, loaded.settings["gelu"]) == ("run", (2, 2), "erf")
        assert loaded.source.meta["class_names"][1] == "bee"
    expected = numpy_options.forward(tensors, images(), pool="gap", gelu=erf_gelu, eps=1e-3)["logits"]
    agree(run(loaded, images()).logits, expected)
    with pytest.raises(
        UserError, match=rf"checkpoints is the folder of a run's checkpoints; give the run's own, {tmp_path}/run"
    ):
        load(str(tmp_path / "run" / "checkpoints"))
    with pytest.raises(UserError, match=r"holds no averaged weights"):
        load(str(folder), weights="average")


def erf_gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def test_a_damaged_run_is_one_clear_error(tmp_path):
    model = {
        "name": "vit",
        "num_classes": 5,
        "patch_size": [4, 6],
        "width": 8,
        "depth": 2,
        "mlp_dim": 12,
        "num_heads": 2,
    }
    tensors = numpy_vit.draw_params()
    meta = {"config": {"model": model}, "grid": [2, 2]}
    folder = Path(write_params(epath.Path(tmp_path / "run"), unflatten_dict(tensors, sep="/"), meta))
    for file in (folder / "params" / "_METADATA", folder / "meta" / "metadata"):
        kept = file.read_bytes()
        for damaged in (kept[: len(kept) // 2], b"", b"[]"):
            file.write_bytes(damaged)
            with pytest.raises(UserError, match=r"cannot be read as a vit_jax checkpoint .*; copy it again"):
                load(str(tmp_path / "run"))
        file.write_bytes(kept)
    same_bits(flat(load(str(tmp_path / "run"))), tensors)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"name": "vit"}, "model.num_classes is missing"),
        ({"name": "cnn"}, "there is no model 'cnn'; expected one of vit, masked, mae, mixer, resnet"),
    ],
    ids=str,
)
def test_a_run_that_does_not_say_its_model_is_an_error(tmp_path, model, message):
    meta = {"config": {"model": model}, "grid": [2, 2]}
    write_params(epath.Path(tmp_path / "run"), {"cls": np.zeros((1, 1, 8), np.float32)}, meta)
    with pytest.raises(UserError, match=message):
        load(str(tmp_path / "run"))
