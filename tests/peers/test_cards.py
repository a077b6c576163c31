"""The code of model cards, executed: each library loads the folder as its card says, and answers as we do (to 1e-5)."""

import re
import shlex
from pathlib import Path

import jax
import numpy as np
import PIL.Image
import pytest
import torch_models as peers
import transformers
from flax.traverse_util import flatten_dict, unflatten_dict

from vit_jax import load_model, read_images
from vit_jax.cli import convert
from vit_jax.convert.load import load
from vit_jax.convert.save import save_model

pytestmark = pytest.mark.filterwarnings("default")
GOLDEN = Path(__file__).resolve().parents[1] / "golden"
USAGE = re.compile(r"\*\*(\w+)\*\*(?:\n\n```\n(.*?)\n```)?\n\n(?:```python\n(.*?)\n```|(.*?)\n)", re.DOTALL)


@pytest.fixture(autouse=True)
def _beside_a_photograph(tmp_path, monkeypatch):
    """Of the model's size, so that nothing is resized; PNG's bytes, so that all decoders give the same pixels."""
    monkeypatch.chdir(tmp_path)
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)).save("photo.jpg", "png")


def follow(folder):
    """Runs the commands and the Python of a folder's card; returns {library: the names that its code defines}."""
    card = Path(folder, "README.md").read_text()
    made, done = {}, set()
    for library, shell, python, why_not in USAGE.findall(card.partition("## How to load it")[2].partition("\n## ")[0]):
        if shell not in {"", *done}:
            words = shlex.split(shell)
            assert words[:2] == ["vit_jax", "convert"]
            assert convert.main(words[2:]) == 0
        done.add(shell)
        assert bool(python) != bool(why_not)
        if python:
            made[library] = {}
            exec(compile(python, library, "exec"), made[library])
    return made


def agree(found, expected):
    assert np.abs(expected).max() > 0.3
    np.testing.assert_allclose(
        found.detach().numpy() if hasattr(found, "detach") else found, expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("form", ["hf", "timm", "orbax"])
def test_a_classifier_is_loaded_by_five_libraries(form):
    peers.save_timm(peers.timm_vit(), Path("source"))
    save_model(load("source"), "weights", "orbax")
    assert convert.main(["--model=weights", "--to=it's tiny", f"--format={form}"]) == 0
    made = follow("it's tiny")
    x = read_images(["photo.jpg"], (16, 16))
    module, params = load_model("weights", stored_pixels=True)
    expected = np.asarray(module.apply({"params": params}, x).logits)
    agree(made["vit_jax"]["probabilities"], jax.nn.softmax(expected))
    agree(made["transformers"]["outputs"].logits, expected)
    photograph = made["timm"]["transform"](PIL.Image.open("photo.jpg").convert("RGB"))
    agree(made["timm"]["model"](photograph[None]), expected)
    if form == "timm":
        again = peers.timm.create_model("local-dir:it's tiny")
        again.load_state_dict(made["torch"]["state"])
        agree(again.eval()(peers.nchw(x)), expected)
    else:
        folder = "it's tiny" if form == "hf" else "it's tiny_hf"
        config = transformers.AutoConfig.from_pretrained(folder)
        kind = transformers.ViTForImageClassification  # its own names are newer ones, to which from_pretrained maps
        again = kind.from_pretrained(None, config=config, state_dict=made["torch"]["state"])
        agree(again(peers.nchw(x)).logits, expected)
    assert all(isinstance(value, jax.Array) for value in made["jax"]["params"].values())
    if form == "orbax":
        agree(module.apply({"params": unflatten_dict(made["jax"]["params"], sep="/")}, x).logits, expected)
    else:
        for name, value in made["torch"]["state"].items():
            np.testing.assert_array_equal(made["jax"]["params"][name], value)


def test_a_classifier_that_no_folder_of_another_library_holds_is_loaded_as_npz():
    _, params = load_model(str(GOLDEN / "hf_encoder"))  # transformers has no head behind its representation layer
    rng = np.random.default_rng(0)
    params = params | {"head": {"kernel": rng.normal(size=(24, 7)).astype(np.float32), "bias": np.ones(7, np.float32)}}
    np.savez("headed.npz", **flatten_dict(params, sep="/"))
    assert (
        convert.main(["--model=headed.npz", "--to=tiny", "--format=orbax", "--set=num_heads=3", "--set=gelu=tanh"]) == 0
    )
    made = follow("tiny")
    assert sorted(made) == ["jax", "torch", "vit_jax"]
    module, params = load_model("tiny")
    expected = np.asarray(module.apply({"params": params}, read_images(["photo.jpg"], (16, 16))).logits)
    agree(made["vit_jax"]["probabilities"], jax.nn.softmax(expected))
    for name, value in flatten_dict(params, sep="/").items():
        np.testing.assert_array_equal(made["jax"]["params"][name], value)
        np.testing.assert_array_equal(made["torch"]["state"][name].numpy(), value)


def test_the_tokens_of_an_encoder_and_the_scores_of_a_detector_are_those_of_transformers():
    for name in ("hf_encoder", "hf_detector"):
        assert convert.main([f"--model={GOLDEN / name}", f"--to={name}2", "--format=orbax"]) == 0
        made = follow(f"{name}2")
        assert sorted(made) == ["jax", "torch", "transformers", "vit_jax"]  # timm has neither
        loaded, theirs = load(f"{name}2", stored_pixels=True), made["transformers"]
        pixels = theirs["processor"](PIL.Image.open("photo.jpg").convert("RGB"), return_tensors="np")["pixel_values"]
        outputs = loaded.module.apply({"params": loaded.params}, pixels.transpose(0, 2, 3, 1))
        if name == "hf_encoder":
            agree(theirs["outputs"].last_hidden_state, np.asarray(outputs.tokens))
            agree(made["vit_jax"]["tokens"], np.asarray(outputs.tokens))
        else:
            agree(theirs["outputs"].logits, np.asarray(outputs.extra["class_logits"]))
            assert made["vit_jax"]["found"].score.shape == (7,)
        assert set(made["jax"]["params"]) == set(flatten_dict(loaded.params, sep="/"))
