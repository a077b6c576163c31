"""The range of a source's images: what its processor says is folded into the first layer, where stored pixels are fed."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from vit_jax.convert.load import load, resolution_of
from vit_jax.convert.save import save_model
from vit_jax.models.build import make_forward
from vit_jax.types import UserError

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def folder(tmp_path, form="hf", mean=MEAN, std=STD):
    """A golden model whose own library would normalise by other statistics."""
    name = {"hf": "hf_classifier", "timm": "timm_token"}[form]
    place = tmp_path / "source"
    shutil.copytree(GOLDEN / name, place)
    if form == "hf":
        said = {"do_normalize": True, "image_mean": mean, "image_std": std}
        (place / "preprocessor_config.json").write_text(json.dumps(said))
    else:
        config = json.loads((place / "config.json").read_text())
        config["pretrained_cfg"] |= {"mean": mean, "std": std}
        (place / "config.json").write_text(json.dumps(config))
    return place


@pytest.mark.slow
def test_a_masked_models_pixels_come_back_in_the_range_of_stored_ones(tmp_path):
    shutil.copytree(GOLDEN / "hf_masked", tmp_path / "source")
    said = {"do_normalize": True, "image_mean": MEAN, "image_std": STD}
    (tmp_path / "source" / "preprocessor_config.json").write_text(json.dumps(said))
    own, ours = (load(str(tmp_path / "source"), stored_pixels=fold) for fold in (False, True))
    hidden = np.random.default_rng(1).random((3, 16)) < 0.5
    normalised = ((stored() / 255 - MEAN) / STD).astype(np.float32)
    theirs = jax.jit(own.module.apply)({"params": own.params}, normalised, hidden=hidden).extra["pixels"]
    found = jax.jit(make_forward(ours.module))(ours.params, stored(), hidden=hidden).extra["pixels"]
    expected = 2 * (np.asarray(theirs, np.float64) * STD + MEAN) - 1  # in [0, 1], then in [-1, 1]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
    folded = {fate.name for fate in ours.report if fate.action == "folded"}
    assert folded == {f"{layer}/{leaf}" for layer in ("embedding", "decoder") for leaf in ("kernel", "bias")}


def stored(count=3):
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["hf", "timm"])
def test_stored_pixels_give_what_the_sources_own_normalisation_gives(tmp_path, form):
    place = folder(tmp_path, form)
    own = load(str(place))
    normalised = ((stored() / 255 - MEAN) / STD).astype(np.float32)
    expected = jax.jit(own.module.apply)({"params": own.params}, normalised).logits
    loaded = load(str(place), stored_pixels=True)
    found = jax.jit(make_forward(loaded.module))(loaded.params, stored()).logits
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
    assert {f.name for f in loaded.report if f.action == "folded"} == {"embedding/kernel", "embedding/bias"}
    plain = jax.jit(make_forward(own.module))(own.params, stored()).logits
    assert np.abs(plain - expected).max() > 0.1  # it matters


def test_half_and_half_is_folded_into_nothing(tmp_path):
    loaded = load(str(folder(tmp_path, mean=[0.5] * 3, std=[0.5] * 3)), stored_pixels=True)
    assert all(fate.action == "loaded" for fate in loaded.report)


def test_statistics_leave_with_the_model(tmp_path):
    loaded = load(str(folder(tmp_path)))
    save_model(loaded, str(tmp_path / "hf"), "hf")
    said = json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())
    assert (said["image_mean"], said["image_std"]) == (MEAN, STD)
    save_model(load(str(tmp_path / "hf")), str(tmp_path / "timm"), "timm")
    assert json.loads((tmp_path / "timm" / "config.json").read_text())["pretrained_cfg"]["mean"] == MEAN
    save_model(load(str(tmp_path / "timm")), str(tmp_path / "a.npz"), "npz")
    assert load(str(tmp_path / "a.npz")).source.meta["pixel_std"] == STD


@pytest.mark.parametrize(("mean", "std"), [("x", STD), (MEAN, [0.2, 0.0, 0.2]), ([], STD)])
def test_nonsense_is_refused(tmp_path, mean, std):
    with pytest.raises(UserError, match="expected a list of numbers, one per channel"):
        load(str(folder(tmp_path, mean=mean, std=std)))


def test_too_few_channels_are_refused(tmp_path):
    place = folder(tmp_path, mean=[0.1, 0.2], std=[0.3, 0.4])
    with pytest.raises(UserError, match="expected one or 3 of each"):
        load(str(place), stored_pixels=True)


def test_a_file_under_its_librarys_name_stands_for_its_folder(tmp_path):
    place = folder(tmp_path)
    assert load(str(place / "model.safetensors")).source.meta["pixel_mean"] == MEAN
    shutil.copy(place / "model.safetensors", tmp_path / "alone.safetensors")
    with pytest.raises(
        UserError, match="does not say how many attention heads"
    ):  # a width that is no published model's
        load(str(tmp_path / "alone.safetensors"))


def test_what_is_assumed_is_reported(tmp_path):
    shutil.copy(GOLDEN / "timm_token" / "model.safetensors", tmp_path / "alone.safetensors")
    loaded = load(str(tmp_path / "alone.safetensors"), num_heads=3)
    assumed = [fate.detail for fate in loaded.report if fate.action == "assumed"]
    assert assumed == ["pool=token, which no tensor tells"]


def test_a_model_is_evaluated_at_the_size_of_its_positions():
    assert resolution_of(load(str(GOLDEN / "timm_token"))) == (16, 16)
    assert resolution_of(load(str(GOLDEN / "timm_token"), resolution=(24, 32))) == (24, 32)
