"""Stacks of layers, the range of pixels and the drawing of parameters: what lies between the models and the rest."""

import jax
import jax.numpy as jnp
import numpy as np
from tiny import draw, flat, model_shapes, shapes, tiny_vit

from vit_jax.models import build

DEPTH = 3


def test_a_scanned_model_starts_where_the_looped_one_does():
    looped, scanned = (tiny_vit(depth=DEPTH, scan=scan, layer_scale=0.1) for scan in (False, True))
    rng = jax.random.key(7)
    expected = build.stack_layers(flat(build.init_params(looped, rng, (8, 12))))
    found = flat(build.init_params(scanned, rng, (8, 12)))
    assert shapes(found) == shapes(expected) == model_shapes(scanned)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype == np.float32
        assert np.array_equal(found[name], value), name
    kernels = found["Transformer/encoderblock/MlpBlock_3/Dense_0/kernel"]
    assert not np.array_equal(kernels[0], kernels[1])  # and not one draw for all


def test_stacking_is_undone():
    tensors = draw(tiny_vit(depth=DEPTH, axial=True, pool="gap"))
    stacked = build.stack_layers(tensors)
    assert len(stacked) < len(tensors)
    again = build.unstack_layers(stacked)
    assert again.keys() == tensors.keys()
    assert all(np.array_equal(again[name], tensors[name]) for name in tensors)
    twice = build.stack_layers(again)
    assert twice.keys() == stacked.keys()
    assert all(np.array_equal(twice[name], stacked[name]) for name in stacked)


def test_layers_are_stacked_in_the_order_of_their_numbers():
    # 10 comes behind 9, not behind 1; and a prefix of the names stays.
    tensors = {f"params/Transformer/encoderblock_{i}/LayerNorm_0/scale": np.full(2, i, np.float32) for i in range(11)}
    tensors = dict(sorted(tensors.items())) | {"params/head/bias": np.zeros(3, np.float32)}
    stacked = build.stack_layers(tensors)
    assert shapes(stacked) == {
        "params/Transformer/encoderblock/LayerNorm_0/scale": (11, 2),
        "params/head/bias": (3,),
    }
    assert stacked["params/Transformer/encoderblock/LayerNorm_0/scale"][:, 0].tolist() == list(range(11))
    again = build.unstack_layers(stacked)
    assert {name: x.tolist() for name, x in again.items()} == {name: x.tolist() for name, x in tensors.items()}


def test_trees_without_layers_or_without_stacks_stay():
    tensors = draw(tiny_vit())
    assert build.unstack_layers(tensors).keys() == tensors.keys()
    others = {"Transformer/encoder_norm/scale": np.ones(2), "encoderblock_0/bias": np.ones(2)}
    assert build.stack_layers(others).keys() == others.keys()
    number = {"Transformer/encoderblock/count": np.zeros(())}  # has no axis of layers
    assert build.unstack_layers(number).keys() == number.keys()


def test_pixels_map_to_minus_one_to_one():
    pixels = np.array([[[[0, 51, 255]]]], np.uint8)
    np.testing.assert_allclose(build.normalize(jnp.asarray(pixels))[0, 0, 0], [-1.0, -0.6, 1.0], atol=1e-7)
