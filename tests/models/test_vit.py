"""The Vision Transformer against numpy and against the released parameter tree."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpy_vit
import pytest
from tiny import QUICK, nested, random_images, run, shapes_of, tiny_vit

from vit_jax.models import build


def test_the_parameter_tree_of_b16_is_the_released_file():
    expected = {
        "cls": (1, 1, 768),
        "embedding/kernel": (16, 16, 3, 768),
        "embedding/bias": (768,),
        "Transformer/posembed_input/pos_embedding": (1, 197, 768),
        "Transformer/encoder_norm/scale": (768,),
        "Transformer/encoder_norm/bias": (768,),
        "head/kernel": (768, 21843),
        "head/bias": (21843,),
    }
    for layer in range(12):
        block = f"Transformer/encoderblock_{layer}/"
        attention = block + "MultiHeadDotProductAttention_1/"
        expected |= {
            block + "LayerNorm_0/scale": (768,),
            block + "LayerNorm_0/bias": (768,),
            attention + "query/kernel": (768, 12, 64),
            attention + "query/bias": (12, 64),
            attention + "key/kernel": (768, 12, 64),
            attention + "key/bias": (12, 64),
            attention + "value/kernel": (768, 12, 64),
            attention + "value/bias": (12, 64),
            attention + "out/kernel": (12, 64, 768),
            attention + "out/bias": (768,),
            block + "LayerNorm_2/scale": (768,),
            block + "LayerNorm_2/bias": (768,),
            block + "MlpBlock_3/Dense_0/kernel": (768, 3072),
            block + "MlpBlock_3/Dense_0/bias": (3072,),
            block + "MlpBlock_3/Dense_1/kernel": (3072, 768),
            block + "MlpBlock_3/Dense_1/bias": (768,),
        }
    assert len(expected) == 200
    assert shapes_of("B/16", num_classes=21843) == expected
    with_layer = shapes_of("B/16", num_classes=21843, representation_size=768)
    assert with_layer == expected | {"pre_logits/kernel": (768, 768), "pre_logits/bias": (768,)}
    assert (
        sum(math.prod(shape) for shape in with_layer.values()) == 103_186_515
    )  # the listed size of imagenet21k/ViT-B_16.npz


@pytest.mark.parametrize("representation", [0, 6])
@pytest.mark.parametrize("pool", ["token", "gap", "map"])
def test_forward_equals_numpy_in_double_precision(pool, representation):
    params = numpy_vit.draw_params(pool=pool, representation=representation)
    model = tiny_vit(pool=pool, representation_size=representation)
    outputs = run(model, params, random_images())
    expected = numpy_vit.forward(params, random_images(), pool=pool)
    assert np.abs(expected["logits"]).max() > 0.5
    for name in expected:
        value = getattr(outputs, name)
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_layer_norm_epsilon_is_1e_minus_6_everywhere():
    # Residuals so small that the variance before every norm is near 1e-6: a norm of another epsilon is 10% off or more.
    params = numpy_vit.draw_params(pool="map")
    quiet = ("embedding/", "posembed", "/out/", "Dense_1")
    params = {name: v * np.float32(5e-4 if any(q in name for q in quiet) else 1) for name, v in params.items()}
    outputs = run(tiny_vit(pool="map"), params, random_images())
    right, wrong = (numpy_vit.forward(params, random_images(), pool="map", eps=eps) for eps in (1e-6, 1e-5))
    for name in ("tokens", "pooled"):
        scale = np.abs(right[name]).max()
        np.testing.assert_allclose(getattr(outputs, name), right[name], rtol=0, atol=1e-5 * scale)
        assert np.abs(right[name] - wrong[name]).max() > 0.1 * scale


def test_bf16_keeps_parameters_and_logits_in_float32():
    params = numpy_vit.draw_params()
    model = tiny_vit(dtype="bfloat16")
    assert {x.dtype for x in jax.tree.leaves(build.abstract_params(model, (8, 12)))} == {jnp.dtype("float32")}
    outputs = jax.jit(build.make_forward(model))(nested(params), random_images())
    assert outputs.tokens.dtype == jnp.bfloat16
    assert outputs.logits.dtype == jnp.float32
    expected = numpy_vit.forward(params, random_images())["logits"]
    error = np.abs(outputs.logits - expected).max() / np.abs(expected).max()
    assert 1e-4 < error < 3e-2  # computed in bfloat16 (8 bits of significand), and right


@pytest.mark.slow
def test_attention_logits_are_float32_in_bf16():
    # Scores of two keys differ by less than bfloat16 resolves at their size (256.5 against 256.25), so attention rounded
    # before the softmax would weigh them equally; float32 weighs them as e^0.25.
    from vit_jax.models.encoder import BlockSettings, MultiHeadDotProductAttention

    settings = BlockSettings(num_heads=1, mlp_dim=4, dtype=jnp.dtype("bfloat16"))
    attention = MultiHeadDotProductAttention(settings)
    eye = jnp.eye(4, dtype=jnp.float32)
    wide = {name: {"kernel": eye[:, None], "bias": jnp.zeros((1, 4))} for name in ("query", "key", "value")}
    params = {**wide, "out": {"kernel": eye[None], "bias": jnp.zeros(4)}}
    queries = jnp.asarray([[[512.0, 1.0, 0.0, 0.0]]])
    inputs = jnp.asarray([[[1.0, 1.0, 1.0, 0.0], [1.0, 0.5, 0.0, 1.0]]])
    mixed = attention.apply({"params": params}, queries, inputs, train=False)[0][0, 0]
    ratio = float(mixed[2] / mixed[3])  # weights of the first and of the second input
    assert ratio == pytest.approx(np.exp(0.25), rel=2e-2)  # 1.284, kept to bfloat16's 8 bits


@pytest.mark.slow
def test_remat_changes_no_number():
    params, images = nested(numpy_vit.draw_params(depth=1)), random_images()

    def loss(params, remat):
        model = tiny_vit(depth=1, dropout=0.3, remat=remat)
        outputs = build.make_forward(model)(params, jnp.asarray(images), train=True, rng=jax.random.key(3))
        return jnp.sum(outputs.logits * outputs.logits)

    grad = jax.jit(jax.value_and_grad(loss), static_argnums=1, compiler_options=QUICK)
    for a, b in zip(jax.tree.leaves(grad(params, "dots")), jax.tree.leaves(grad(params, "none")), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_remat_recomputes_the_blocks():
    def backward_products(remat):
        def loss(params):
            return build.make_forward(tiny_vit(remat=remat))(params, jnp.asarray(random_images())).logits.sum()

        return str(jax.make_jaxpr(jax.grad(loss))(nested(numpy_vit.draw_params()))).count("dot_general")

    # Per block: query, key, value, two attention products, out and the MLP's first layer are needed again (its second
    # layer's output is not).
    assert backward_products("block") - backward_products("none") >= 7
