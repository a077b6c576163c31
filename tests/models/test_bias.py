"""The relative position bias against BEiT's own index and numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import QUICK, model_shapes, nested, random_images, tiny_vit

from vit_jax.models import build
from vit_jax.models.bias import bias_index, resample_bias
from vit_jax.types import UserError


def beit_index(gh, gw):
    """As BEiT computes it (its `RelativePositionBias`), in numpy."""
    coords = np.stack(np.meshgrid(np.arange(gh), np.arange(gw), indexing="ij")).reshape(2, -1)
    relative = (coords[:, :, None] - coords[:, None, :]).transpose(1, 2, 0)
    relative[:, :, 0] += gh - 1
    relative[:, :, 1] += gw - 1
    relative[:, :, 0] *= 2 * gw - 1
    distances = (2 * gh - 1) * (2 * gw - 1) + 3
    index = np.zeros((gh * gw + 1,) * 2, int)
    index[1:, 1:] = relative.sum(-1)
    index[0, 0:], index[0:, 0], index[0, 0] = distances - 3, distances - 2, distances - 1
    return index


def test_the_index_is_beits():
    np.testing.assert_array_equal(bias_index((2, 3), has_class_token=True), beit_index(2, 3))
    np.testing.assert_array_equal(bias_index((3, 2), has_class_token=False), beit_index(3, 2)[1:, 1:])


def test_simmims_table_at_224_pixels_has_732_rows():
    shapes = model_shapes(tiny_vit(patch_size=(16, 16), positions="relative_bias", positions_at="shared"), (224, 224))
    assert shapes["Transformer/relative_bias/rel_bias"] == (732, 2)
    assert not any("posembed" in name for name in shapes)


def captured(model, params, images):
    def apply(params, x):
        return model.apply({"params": params}, build.normalize(x), capture=("attention",))

    return jax.jit(apply, compiler_options=QUICK)(nested(params), jnp.asarray(images))


def drawn(model, scale=0.4):
    rng = np.random.default_rng(0)
    return {
        name: (rng.standard_normal(shape) * scale + name.endswith("scale")).astype(np.float32)
        for name, shape in model_shapes(model, (8, 18)).items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True])
def test_the_bias_is_added_to_the_logits_of_every_layer(scan):
    images, shared = random_images(w=18), tiny_vit(positions="relative_bias", positions_at="shared")
    params = drawn(shared)
    table = params.pop("Transformer/relative_bias/rel_bias")
    plain = captured(tiny_vit(positions="none"), params, images)
    biased = params | {"Transformer/relative_bias/rel_bias": table}
    model = shared.clone(scan=scan)
    found = captured(model, build.stack_layers(biased) if scan else biased, images)
    # In the first layer both have the same queries and keys: the weights are multiplied by exp(bias) and renormalised.
    bias = np.exp(table[beit_index(2, 3)].transpose(2, 0, 1).astype(np.float64))
    expected = np.asarray(plain.attention[0], np.float64) * bias
    expected /= expected.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(found.attention[0], expected, rtol=1e-4, atol=1e-6)
    assert np.abs(found.attention[0] - plain.attention[0]).max() > 0.05
    # A table in each layer, all equal, is the same model.
    each = params | {f"Transformer/encoderblock_{i}/relative_bias/rel_bias": table for i in range(2)}
    own = captured(tiny_vit(positions="relative_bias", positions_at="every_layer"), each, images)
    np.testing.assert_allclose(own.logits, found.logits, rtol=1e-5, atol=1e-6)


def test_a_table_is_resized_as_an_image_of_offsets():
    rng = np.random.default_rng(0)
    table = rng.standard_normal((3 * 5 + 3, 2)).astype(np.float32)
    np.testing.assert_array_equal(resample_bias(table, (2, 3), (2, 3)), table)
    # Rows -1, 0, 1 become -2 .. 2: the odd ones are means of their neighbours; columns stay, and so do the class token's.
    found = resample_bias(table, (2, 3), (3, 3))
    image = table[:15].reshape(3, 5, 2)
    expected = np.stack([image[0], (image[0] + image[1]) / 2, image[1], (image[1] + image[2]) / 2, image[2]])
    np.testing.assert_allclose(found[:25].reshape(5, 5, 2), expected, rtol=1e-6)
    np.testing.assert_array_equal(found[25:], table[15:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "relative_bias acts in the layers; set model.positions_at=shared or every_layer"),
        ({"positions_at": "shared", "registers": 2}, "relative_bias goes with neither axial nor registers"),
    ],
)
def test_what_it_does_not_go_with_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        model_shapes(tiny_vit(positions="relative_bias", **options))
