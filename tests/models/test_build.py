"""Stacks of layers, the range of pixels and the drawing of parameters: what lies between the models and the rest."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import draw, flat, model_shapes, shapes, tiny_vit

from vit_jax.models import build
from vit_jax.models.base import ImageModel
from vit_jax.types import Outputs

DEPTH = 3


@pytest.mark.slow
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


class Told(ImageModel):
    """A model that says what it was given; older models from outside take no `capture`."""

    takes_capture: bool = True

    @nn.compact
    def __call__(self, images, *, train, **asked):
        if asked and not self.takes_capture:
            raise TypeError
        seed = jax.random.key_data(self.make_rng("dropout"))[-1] if self.has_rng("dropout") else -1
        extra = {"train": train, "asked": asked.get("capture", ()), "seed": seed}
        return Outputs(images, None, None, None, extra=extra)


def test_a_forward_pass_gives_the_model_pixels_its_mode_and_a_key_only_if_there_is_one():
    images = np.array([[[[0, 51, 255]]]], np.uint8)
    outputs = build.make_forward(Told())({}, jnp.asarray(images))
    np.testing.assert_allclose(outputs.tokens[0, 0, 0], [-1, -0.6, 1], atol=1e-7)
    assert outputs.extra == {"train": False, "asked": (), "seed": -1}
    outputs = build.make_forward(Told())(
        {}, jnp.asarray(images), train=True, rng=jax.random.key(3), capture=("layers",)
    )
    assert (outputs.extra["train"], outputs.extra["asked"]) == (True, ("layers",))
    assert outputs.extra["seed"] != -1


def test_a_model_from_outside_need_not_know_of_capture():
    assert build.make_forward(Told(takes_capture=False))({}, jnp.zeros((1, 2, 2, 3), jnp.uint8)).extra["asked"] == ()
    with pytest.raises(TypeError):
        build.make_forward(Told(takes_capture=False))({}, jnp.zeros((1, 2, 2, 3), jnp.uint8), capture=("layers",))


def test_a_model_is_sized_without_its_memory():
    # 2 x 40,000 x 100,000 floats of a head would be 32 GB.
    model = tiny_vit(width=100_000, num_heads=1, depth=1, mlp_dim=1, num_classes=80_000)
    outputs, params = build.abstract_model(model, (8, 12))
    assert outputs.logits.shape == (1, 80_000)
    head, attention = 100_000 * 80_000 + 80_000, 4 * (100_000**2 + 100_000)
    mlp, norms, rest = 100_000 + 1 + 100_000 + 100_000, 6 * 100_000, (4 * 6 * 3 + 1) * 100_000 + 6 * 100_000
    assert build.count_params(params) == head + attention + mlp + norms + rest
    assert build.abstract_params(model, (8, 12)) == params
