"""Blocks as a loop of the compiled program: the numbers, gradients and initial values of blocks one after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import QUICK, draw, flat, model_shapes, nested, random_images, run, shapes, tiny_vit

from vit_jax.models import build

DEPTH = 3
# Whatever a block may be given from outside, and whatever of its own.
VARIETIES = {
    "shared positions": {"positions_at": "shared"},
    "positions of its own": {"positions": "learned_2d", "positions_at": "every_layer"},
    "relative positions": {"positions": "relative", "positions_at": "every_layer"},
    "options": {"registers": 2, "qk_norm": True, "layer_scale": 0.1, "stochastic_depth": 0.2, "pool": "map"},
    "axial": {"axial": True, "pool": "gap"},
}


@pytest.mark.slow
@pytest.mark.parametrize("variety", VARIETIES)
def test_scanned_blocks_compute_what_looped_blocks_do(variety):
    looped, scanned = (tiny_vit(depth=DEPTH, scan=scan, **VARIETIES[variety]) for scan in (False, True))
    params = draw(looped)
    stacked = build.stack_layers(params)
    assert model_shapes(scanned) == shapes(stacked)
    asked = {"capture": ("layers", "attention")}
    a, b = run(looped, params, random_images(), **asked), run(scanned, stacked, random_images(), **asked)
    assert np.abs(a.logits).max() > 0.1
    assert len(a.layers) == len(b.layers) == len(b.attention) == DEPTH
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)


def gradients(model, params):
    def loss(params):
        logits = build.make_forward(model)(params, jnp.asarray(random_images())).logits
        return jnp.sum(logits * logits)

    return flat(jax.jit(jax.grad(loss), compiler_options=QUICK)(nested(params)))


@pytest.mark.slow
def test_scanned_blocks_have_the_looped_blocks_gradients():
    params = draw(tiny_vit(depth=DEPTH))
    expected = build.stack_layers(gradients(tiny_vit(depth=DEPTH), params))
    assert np.abs(expected["Transformer/encoderblock/MlpBlock_3/Dense_0/kernel"]).max() > 1
    for remat in ("none", "dots", "block", "offload"):
        found = gradients(tiny_vit(depth=DEPTH, scan=True, remat=remat), build.stack_layers(params))
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            # A key's bias has gradient 0: it adds the same to all logits of a query.
            atol = 2e-6 * max(np.abs(gradient).max(), 1)
            np.testing.assert_allclose(found[name], gradient, rtol=0, atol=atol, err_msg=f"{name}, remat {remat}")


def programs(depth, **options):
    """The text of the backward pass."""
    model = tiny_vit(depth=depth, **options)

    def loss(params):
        return build.make_forward(model)(params, jnp.asarray(random_images())).logits.sum()

    return str(jax.make_jaxpr(jax.grad(loss))(build.abstract_params(model, (8, 12))))


def test_a_scanned_program_does_not_grow_with_depth():
    products = [programs(depth, scan=True).count("dot_general") for depth in (2, 4)]
    assert products[0] == products[1] > 0


def test_scanned_blocks_are_recomputed_where_asked():
    # Per block at least: query, key, value, two attention products, out and the MLP's first layer.
    with_remat, without = (programs(2, scan=True, remat=remat).count("dot_general") for remat in ("block", "none"))
    assert with_remat - without >= 7


@pytest.mark.slow
def test_dots_recomputes_no_matrix_product_and_block_keeps_no_hidden_layer():
    kept = {}
    for remat in ("none", "dots", "block", "offload"):
        model = tiny_vit(depth=2, scan=True, remat=remat)
        params = build.abstract_params(model, (8, 12))

        def forward(params, model=model):
            return build.make_forward(model)(params, jnp.asarray(random_images())).logits

        _, pull = jax.eval_shape(lambda p, f=forward: jax.vjp(f, p), params)
        kept[remat] = sorted(x.shape for x in jax.tree.leaves(pull) if x.shape[:1] == (2,) and x.ndim > 3)
    hidden, weights, tokens = (2, 3, 5, 12), (2, 3, 2, 5, 5), (2, 3, 5, 8)
    assert hidden in kept["dots"]
    assert weights in kept["dots"]
    assert programs(2, scan=True, remat="dots").count("dot_general") == programs(2, scan=True).count("dot_general")
    assert len(kept["dots"]) < len(kept["none"])
    assert [shape for shape in kept["block"] if shape[1] == 3] == [tokens]
    assert "pinned_host" in programs(2, scan=True, remat="offload") or "<host>" in programs(
        2, scan=True, remat="offload"
    )


def test_layers_of_a_scan_drop_elements_of_their_own():
    # Only the biases behind the MLPs are not zero, so what a block adds is the mask of its last dropout, doubled.
    model = tiny_vit(depth=DEPTH, scan=True, dropout=0.5)
    params = {name: np.zeros(shape, np.float32) for name, shape in model_shapes(model).items()}
    params["Transformer/encoderblock/MlpBlock_3/Dense_1/bias"] += 1
    asked = {"train": True, "capture": ("layers",), "rngs": {"dropout": jax.random.key(0)}}
    layers = run(model, params, random_images(b=32), **asked).layers
    masks = np.diff(np.stack([np.zeros_like(layers[0]), *layers]), axis=0)
    assert sorted(set(masks.ravel().tolist())) == [0, 2]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        agree = np.mean(masks[first] == masks[second])
        assert abs(agree - 0.5) < 4 * 0.5 / np.sqrt(masks[0].size)
