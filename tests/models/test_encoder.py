"""The options of a block, against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy_options
import numpy_vit
import pytest
from tiny import random_images, run, tiny_vit
from with_options import ATTENTION, POSITIONS, apart, draw, same

from vit_jax.models import build
from vit_jax.models.encoder import gelu


def test_queries_and_keys_are_normalised_per_head():
    # One scale and bias for the 4 units of a head, common to the heads.
    norms = {
        f"Transformer/encoderblock_{{}}/{ATTENTION}/{x}_norm/{leaf}": (4,)
        for x in ("query", "key")
        for leaf in ("scale", "bias")
    }
    params = draw(norms)
    assert apart(same(tiny_vit(qk_norm=True), params), numpy_options.forward(numpy_vit.draw_params(), random_images()))


def test_layer_scale_multiplies_both_branches():
    scales = {f"Transformer/encoderblock_{{}}/LayerScale_{branch}/scale": (8,) for branch in (0, 1)}
    same(tiny_vit(layer_scale=1e-4), draw(scales))
    start = build.init_params(tiny_vit(layer_scale=1e-4), jax.random.key(0), (8, 12))["Transformer"]["encoderblock_1"]
    assert [np.asarray(start[f"LayerScale_{branch}"]["scale"]).tolist() for branch in (0, 1)] == [
        [np.float32(1e-4)] * 8
    ] * 2


def test_axial_blocks_mix_rows_and_then_columns():
    halves = {}
    for name, x in numpy_vit.draw_params(pool="gap").items():
        if "encoderblock_0/" in name:
            rest = name.split("encoderblock_0/")[1]
            halves |= {f"Transformer/encoderblock_{{}}/{half}/{rest}": x.shape for half in ("row", "column")}
    params = draw(halves, leave_out=["encoderblock", POSITIONS], pool="gap")
    params |= numpy_vit.draw({f"Transformer/{POSITIONS}": (1, 6, 8)}, seed=2)
    expected = same(tiny_vit(pool="gap", axial=True), params, random_images(w=18), pool="gap", grid=(2, 3))
    turned = {
        name.replace("row", "turn").replace("column", "row").replace("turn", "column"): x for name, x in params.items()
    }
    assert apart(expected, numpy_options.forward(turned, random_images(w=18), pool="gap", grid=(2, 3)))


def test_the_exact_gelu():
    x = np.linspace(-6, 6, 201)
    np.testing.assert_allclose(gelu(jnp.asarray(x, jnp.float32), "erf"), numpy_vit.exact_gelu(x), atol=1e-6)
    assert gelu(jnp.float32(2.0), "erf") == pytest.approx(1.954500, abs=1e-6)  # 2 Phi(2); the approximation: 1.954598
    # In the model: the two differ by up to 4.7e-4 where |x| is near 2.7, and biases put every hidden unit there.
    params = draw()
    params = {name: x * 0 + 2.7 if name.endswith("Dense_0/bias") else x for name, x in params.items()}
    images = random_images()
    right, wrong = (
        numpy_options.forward(params, images, gelu=f)["logits"] for f in (numpy_vit.exact_gelu, numpy_vit.gelu)
    )
    logits = run(tiny_vit(gelu="erf"), params, images).logits
    assert np.abs(logits - right).max() < 0.02 * np.abs(wrong - right).max()


def test_the_epsilon_asked_for_is_that_of_every_norm():
    # Branches and inputs so small that a variance is near 1e-4.
    norms = {
        f"Transformer/encoderblock_{{}}/{ATTENTION}/{x}_norm/{leaf}": (4,)
        for x in ("query", "key")
        for leaf in ("scale", "bias")
    }
    params = draw({**norms, "fc_norm/scale": (8,), "fc_norm/bias": (8,)}, leave_out=["encoder_norm"])
    quiet = ("embedding/", "posembed", "/out/", "Dense_1", "cls")
    params = {name: x * np.float32(5e-3 if any(q in name for q in quiet) else 1) for name, x in params.items()}
    model = tiny_vit(qk_norm=True, norm_after_pool=True, norm_eps=1e-4)
    images = random_images()
    right, wrong = (numpy_options.forward(params, images, norm_pooled=True, eps=eps) for eps in (1e-4, 1e-6))
    outputs = run(model, params, images)
    for name in ("tokens", "pooled"):
        scale = np.abs(right[name]).max()
        np.testing.assert_allclose(getattr(outputs, name), right[name], rtol=0, atol=1e-5 * scale)
        assert np.abs(right[name] - wrong[name]).max() > 0.01 * scale


@pytest.mark.parametrize("kind", ["tanh", "erf"])
def test_the_gradient_of_gelu_is_the_slope_in_float64_and_keeps_no_more_than_its_input(kind):
    exact = {"tanh": numpy_vit.gelu, "erf": numpy_vit.exact_gelu}[kind]
    x = np.linspace(-6, 6, 97)
    slope = (exact(x + 1e-5) - exact(x - 1e-5)) / 2e-5
    out, pull = jax.vjp(lambda x: gelu(x, kind), jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(pull(jnp.ones_like(out))[0], slope, atol=1e-5)  # 1 - tanh^2 cancels
    assert [kept.shape for kept in jax.tree.leaves(pull)] == [x.shape]


def test_gelu_is_the_tanh_approximation():
    x = np.linspace(-6, 6, 201)
    np.testing.assert_allclose(gelu(jnp.asarray(x, jnp.float32)), numpy_vit.gelu(x), atol=1e-6)
    # 0.5 * 2 * (1 + tanh(0.797885 * (2 + 0.044715 * 8))); the exact function is 1.954500 here.
    assert gelu(jnp.float32(2.0)) == pytest.approx(1.954598, abs=1e-6)
