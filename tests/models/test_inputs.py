"""What a loaded model is called with by mistake: each mistake is told by what to do about it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_vit

from vit_jax.models import build
from vit_jax.models.mixer import MlpMixer
from vit_jax.models.resnet import ResNet
from vit_jax.types import UserError

MIXER = {"num_classes": 3, "patch_size": (4, 4), "width": 8, "depth": 1, "tokens_mlp_dim": 4, "channels_mlp_dim": 8}
MODELS = {
    "vit": tiny_vit(patch_size=(4, 4)),
    "hybrid": tiny_vit(stem="resnet", stem_depths=(), stem_width=4, patch_size=(1, 1)),
    "mixer": MlpMixer(**MIXER),
    "resnet": ResNet(3, (1,)),
}


def refusal(model, images, resolution=(12, 12), **options):
    """What a model says that has parameters for images of a resolution."""
    params = build.abstract_params(model, resolution, **options)
    with pytest.raises(UserError) as caught:
        jax.eval_shape(model.apply, {"params": params}, images)
    return str(caught.value)


@pytest.mark.parametrize("name", MODELS)
def test_integers_are_told_how_they_become_numbers_of_the_right_range(name):
    said = refusal(MODELS[name], jnp.zeros((2, 12, 12, 3), jnp.uint8))
    assert said == "images are uint8; expected floats in [-1, 1]: images.astype('float32') / 127.5 - 1"
    fixed = np.array([0, 255], np.uint8).astype("float32") / 127.5 - 1
    assert fixed.tolist() == [-1, 1]


@pytest.mark.parametrize("name", MODELS)
def test_a_single_image_is_told_to_be_a_batch_of_one(name):
    said = refusal(MODELS[name], jnp.zeros((12, 12, 3)))
    assert said == "images have shape (12, 12, 3); expected (b, h, w, channels): images[None] is a batch of one"
    assert "(5,); expected (b, h, w, channels)" in refusal(MODELS[name], jnp.zeros(5))


@pytest.mark.parametrize("name", MODELS)
def test_channels_first_are_told_how_to_be_last(name):
    said = refusal(MODELS[name], jnp.zeros((2, 3, 12, 16)))
    assert said.endswith("have their channels first; expected them last: images.transpose(0, 2, 3, 1)")
    assert np.zeros((2, 3, 12, 16)).transpose(0, 2, 3, 1).shape == (2, 12, 16, 3)
    said = refusal(MODELS[name], jnp.zeros((3, 12, 16), jnp.uint8))
    assert "uint8" in said
    assert "images[None]" in said
    assert said.endswith("images.transpose(1, 2, 0)")


@pytest.mark.parametrize("name", MODELS)
def test_another_number_of_channels_is_told_with_both_numbers(name):
    said = refusal(MODELS[name], jnp.zeros((2, 12, 12, 1)))
    assert "have 1 channel, and this model takes 3; load_model(path, channels=1)" in said
    assert "have 3 channels, and this model takes 1;" in refusal(MODELS[name], jnp.zeros((2, 12, 12, 3)), channels=1)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pool": "gap"},
        {"positions": "learned_2d"},
        {"positions_at": "every_layer"},
        {"positions_at": "shared"},
        {"positions": "relative", "positions_at": "every_layer"},
    ],
    ids=str,
)
def test_images_of_another_size_are_told_the_size_and_how_to_load_for_them(options, scan):
    model = tiny_vit(patch_size=(4, 4), scan=scan, **options)
    said = refusal(model, jnp.zeros((2, 16, 20, 3)))
    assert said.startswith("images of 16x20 pixels have 4x5 = 20 patches, and this model has positions for 9;")
    assert "resize the images to 12x12, or load it for this size: load_model(path, resolution=(16, 20))" in said
    oblong = refusal(model, jnp.zeros((2, 16, 20, 3)), resolution=(8, 24))
    assert "positions for 12;" in oblong
    assert ("resize the images to 8x24" in oblong) == (options.get("positions") == "learned_2d")


def test_a_hybrid_and_a_mixer_count_in_pixels_too():
    said = refusal(MODELS["hybrid"], jnp.zeros((2, 16, 20, 3)))
    assert said.startswith(
        "images of 16x20 pixels have 4x5 = 20 patches, and this model has positions for 9; resize the"
    )
    assert "to 12x12" in said
    assert "(a Mixer has only one)" in refusal(MODELS["mixer"], jnp.zeros((2, 16, 20, 3)))


def test_models_without_positions_take_any_size():
    for model in (tiny_vit(patch_size=(4, 4), positions="none"), tiny_vit(patch_size=(4, 4), positions="sincos_2d")):
        params = build.abstract_params(model, (12, 12))
        out = jax.eval_shape(model.apply, {"params": params}, jnp.zeros((2, 16, 20, 3)))
        assert out.tokens.shape[0] == 2


@pytest.mark.slow
def test_numpy_arrays_are_taken_as_they_are():
    model = tiny_vit(patch_size=(4, 4))
    params = build.init_params(model, jax.random.key(0), (12, 12))
    images = np.random.default_rng(0).uniform(-1, 1, (2, 12, 12, 3)).astype(np.float32)
    same = model.apply({"params": params}, jnp.asarray(images)).tokens
    assert np.array_equal(model.apply({"params": params}, images).tokens, same)
