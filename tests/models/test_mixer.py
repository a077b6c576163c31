"""The MLP-Mixer against numpy and against the released parameter tree."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy_vit
import pytest
from tiny import model_shapes, random_images, run, shapes

from vit_jax.models import build
from vit_jax.models.mixer import MlpMixer
from vit_jax.models.variants import mixer_variant
from vit_jax.types import UserError


def tiny_mixer(**options):
    sizes = {"patch_size": (4, 6), "width": 8, "depth": 2, "tokens_mlp_dim": 5, "channels_mlp_dim": 12}
    return MlpMixer(**{"num_classes": 3, **sizes, **options})


def mixer_shapes(*, patch, tokens, d, depth, across, channels, classes):
    """Names and shapes of the released files."""
    named = {"stem/kernel": (*patch, 3, d), "stem/bias": (d,)}
    for layer in range(depth):
        block = f"MixerBlock_{layer}"
        named |= {
            f"{block}/{norm}/{leaf}": (d,) for norm in ("LayerNorm_0", "LayerNorm_1") for leaf in ("scale", "bias")
        }
        for name, size, hidden in (("token_mixing", tokens, across), ("channel_mixing", d, channels)):
            named |= {f"{block}/{name}/Dense_0/kernel": (size, hidden), f"{block}/{name}/Dense_0/bias": (hidden,)}
            named |= {f"{block}/{name}/Dense_1/kernel": (hidden, size), f"{block}/{name}/Dense_1/bias": (size,)}
    named |= {"pre_head_layer_norm/scale": (d,), "pre_head_layer_norm/bias": (d,)}
    return named | {"head/kernel": (d, classes), "head/bias": (classes,)}


TINY = {"patch": (4, 6), "tokens": 6, "d": 8, "depth": 2, "across": 5, "channels": 12, "classes": 3}


def forward(params, images, gelu=numpy_vit.gelu, eps=1e-6):
    """arXiv 2105.01601, equation 1 and section 2: y = x + (MLP(LN(x)^T))^T, then x = y + MLP(LN(y))."""
    p = {name: np.asarray(x, np.float64) for name, x in params.items()}
    x = numpy_vit.embed(numpy_vit.pixels(images), p, "stem")
    layers = []
    for layer in range(2):
        block = f"MixerBlock_{layer}"
        y = numpy_vit.layer_norm(x, p, f"{block}/LayerNorm_0", eps)
        mixed = np.zeros_like(y)
        for channel in range(y.shape[2]):  # the same MLP for every channel
            mixed[:, :, channel] = numpy_vit.mlp(y[:, :, channel], p, f"{block}/token_mixing", gelu)
        x = x + mixed
        y = numpy_vit.layer_norm(x, p, f"{block}/LayerNorm_1", eps)
        x = x + numpy_vit.mlp(y, p, f"{block}/channel_mixing", gelu)
        layers.append(x)
    tokens = numpy_vit.layer_norm(x, p, "pre_head_layer_norm", eps)
    pooled = tokens.mean(axis=1)
    logits = pooled @ p["head/kernel"] + p["head/bias"]
    return {"tokens": tokens, "pooled": pooled, "pre_logits": pooled, "logits": logits, "layers": layers}


def test_the_mixer_is_numpys():
    params, images = numpy_vit.draw(mixer_shapes(**TINY)), random_images(w=18)
    assert model_shapes(tiny_mixer(), (8, 18)) == shapes(params)
    outputs, expected = run(tiny_mixer(), params, images), forward(params, images)
    assert np.abs(expected["logits"]).max() > 0.5
    for name in ("tokens", "pooled", "pre_logits", "logits"):
        np.testing.assert_allclose(getattr(outputs, name), expected[name], rtol=1e-5, atol=1e-5, err_msg=name)
    assert outputs.layers is None
    captured = run(tiny_mixer(), params, images, capture=("layers",)).layers
    np.testing.assert_allclose(captured, expected["layers"], rtol=1e-5, atol=1e-5)


def test_the_parameter_tree_of_mixer_b16_is_the_released_file():
    settings = {key: value for key, value in mixer_variant("B/16").items() if key != "name"}
    sizes = {"patch": (16, 16), "tokens": 196, "d": 768, "depth": 12, "across": 384, "channels": 3072}
    expected = mixer_shapes(**sizes, classes=21843)
    assert model_shapes(MlpMixer(21843, **settings), (224, 224)) == expected
    assert len(expected) == 2 + 12 * 12 + 2 + 2


def test_layer_norm_epsilon_is_1e_minus_6_everywhere():
    # Residuals so small that the variance before every norm is near 1e-6, whatever the number of blocks behind it.
    params = numpy_vit.draw(mixer_shapes(**TINY))
    params = {n: x * np.float32(5e-4 if "stem/" in n or "Dense_1" in n else 1) for n, x in params.items()}
    images = random_images(w=18)
    outputs = run(tiny_mixer(), params, images, capture=("layers",))
    right, wrong = (forward(params, images, eps=eps) for eps in (1e-6, 1e-5))
    for found, expected, other in (
        (outputs.tokens, right["tokens"], wrong["tokens"]),
        (outputs.layers[0], right["layers"][0], wrong["layers"][0]),
    ):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)
        assert np.abs(expected - other).max() > 0.1 * scale


def test_the_exact_gelu_is_an_option():
    # Hidden units near 2.7, where the two differ most.
    params = {n: x * 0 + 2.7 if "Dense_0/bias" in n else x for n, x in numpy_vit.draw(mixer_shapes(**TINY)).items()}
    images = random_images(w=18)
    right, wrong = (forward(params, images, gelu)["logits"] for gelu in (numpy_vit.exact_gelu, numpy_vit.gelu))
    logits = run(tiny_mixer(gelu="erf"), params, images).logits
    assert np.abs(logits - right).max() < 0.1 * np.abs(wrong - right).max()


@pytest.mark.slow
def test_a_new_head_gives_its_bias_and_no_classes_no_head():
    model = tiny_mixer(head_bias=-4.0)
    params = build.init_params(model, jax.random.key(0), (8, 12))
    assert np.asarray(run(model, params, random_images()).logits).tolist() == [[-4.0] * 3] * 3
    assert "head/kernel" not in model_shapes(tiny_mixer(num_classes=0))
    del params["head"]
    assert run(tiny_mixer(num_classes=0), params, random_images()).logits is None


def test_bfloat16_is_computed_to_its_precision():
    params, images, model = numpy_vit.draw(mixer_shapes(**TINY)), random_images(w=18), tiny_mixer(dtype="bfloat16")
    outputs, expected = run(model, params, images), forward(params, images)["logits"]
    assert outputs.tokens.dtype == jnp.bfloat16
    assert outputs.logits.dtype == jnp.float32
    assert 1e-4 < np.abs(outputs.logits - expected).max() / np.abs(expected).max() < 5e-2


# Stochastic depth


def steps(train):
    """What each of three blocks adds to every token; every parameter is zero but the biases at the branches' ends."""
    model = tiny_mixer(depth=3, stochastic_depth=0.6, patch_size=(2, 2))
    params = {name: np.zeros(shape, np.float32) for name, shape in model_shapes(model, (2, 4)).items()}
    for name, x in params.items():
        x += name.endswith("token_mixing/Dense_1/bias") + 100 * name.endswith("channel_mixing/Dense_1/bias")
    rngs = {"dropout": jax.random.key(1)} if train else {}
    images = random_images(4096, 2, 4)
    layers = np.stack(run(model, params, images, train=train, capture=("layers",), rngs=rngs).layers)
    assert np.array_equal(layers, np.broadcast_to(layers[:, :, :1, :1], layers.shape))
    return np.diff(layers[:, :, 0, 0], axis=0, prepend=0)


def test_stochastic_depth_grows_linearly_and_leaves_branches_out_for_whole_examples():
    for added, rate in zip(steps(train=True), (0, 0.3, 0.6), strict=True):
        values = np.round(added * (1 - rate), 2)  # survivors are scaled by 1 / (1 - rate)
        assert set(values.tolist()) == ({101} if rate == 0 else {0, 1, 100, 101})
        for kept in (values % 100 == 1, values >= 100):
            assert abs(kept.mean() - (1 - rate)) <= 4 * np.sqrt(rate * (1 - rate) / kept.size)


def test_stochastic_depth_is_off_in_evaluation():
    assert np.unique(steps(train=False)).tolist() == [101]
    assert model_shapes(tiny_mixer(stochastic_depth=0.6)) == model_shapes(tiny_mixer())


# What cannot be


def test_a_mixer_has_no_attention():
    with pytest.raises(UserError, match="a Mixer has layers to capture, and no attention"):
        jax.eval_shape(lambda: tiny_mixer().init(jax.random.key(0), jnp.zeros((1, 8, 12, 3)), capture=("attention",)))


def test_an_image_the_patch_does_not_divide_is_an_error():
    with pytest.raises(UserError, match=r"image of 10x12 pixels .* for example 8x12"):
        build.abstract_params(tiny_mixer(), (10, 12))
