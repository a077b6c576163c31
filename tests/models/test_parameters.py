"""What parameters say by themselves: positions of every kind as the model adds them."""

import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from vit_jax.models.build import MODELS, abstract_params
from vit_jax.models.parameters import find_positions, first_filters
from vit_jax.models.positions import sincos_2d

SIZES = {"num_classes": 2, "patch_size": (4, 4), "width": 8, "depth": 2, "mlp_dim": 8, "num_heads": 2}


def made(name="vit", **fields):
    module = MODELS[name](**SIZES, **fields)
    shapes, rng = flatten_dict(abstract_params(module, (8, 12)), sep="/"), np.random.default_rng(0)
    flat = {key: rng.standard_normal(x.shape, np.float32) for key, x in shapes.items()}
    return module, unflatten_dict(flat, sep="/"), flat


def test_the_filters_are_those_of_the_first_layer():
    module, params, flat = made()
    np.testing.assert_array_equal(first_filters(module, params), flat["embedding/kernel"])


def test_a_learned_table_loses_the_class_tokens_entry():
    module, params, flat = made()
    found = find_positions(module, params, (2, 3))
    assert (found.kind, len(found.tables)) == ("vectors", 1)
    np.testing.assert_array_equal(found.tables[0], flat["Transformer/posembed_input/pos_embedding"][0, 1:])


def test_a_table_for_each_layer_is_found_in_their_order_also_if_layers_are_stacked():
    for scan in (False, True):
        module, params, flat = made(positions_at="every_layer", scan=scan)
        found = find_positions(module, params, (2, 3))
        assert len(found.tables) == 2
        name = "posembed_input/pos_embedding"
        last = flat[f"Transformer/encoderblock/{name}"][1] if scan else flat[f"Transformer/encoderblock_1/{name}"]
        np.testing.assert_array_equal(found.tables[1], last[0, 1:])


def test_rows_and_columns_are_joined_column_first():
    module, params, flat = made(positions="learned_2d")
    (table,) = find_positions(module, params, (2, 3)).tables
    x, y = (flat[f"Transformer/posembed_input/pos_embedding_{axis}"][0] for axis in "xy")
    np.testing.assert_array_equal(table[1 * 3 + 2], np.concatenate([x[2], y[1]]))


def test_fixed_positions_are_computed_and_none_are_none():
    module, params, _ = made(positions="sincos_2d", pool="gap")
    np.testing.assert_array_equal(find_positions(module, params, (2, 3)).tables[0], sincos_2d((2, 3), 8))
    module, params, _ = made(positions="none")
    assert find_positions(module, params, (2, 3)) is None


@pytest.mark.parametrize("place", ["shared", "every_layer"])
def test_a_bias_is_a_mean_over_heads_by_offset(place):
    module, params, flat = made(positions="relative_bias", positions_at=place)
    found = find_positions(module, params, (2, 3))
    tables = [x for name, x in sorted(flat.items()) if name.endswith("rel_bias")]
    assert (found.kind, len(found.tables)) == ("bias", len(tables))
    assert found.offset.shape == (6, 6)
    # The query at (1, 0), the key at (0, 2): offset (1, -2), of rows -1..1 and columns -2..2.
    assert found.offset[3, 2] == (1 + 1) * 5 + (-2 + 2)
    np.testing.assert_allclose(found.tables[0], tables[0].mean(axis=1), rtol=1e-6)


def test_relative_embeddings_are_found_by_their_offset_in_reading_order():
    module, params, flat = made(positions="relative", positions_at="every_layer")
    found = find_positions(module, params, (2, 3))
    assert (found.kind, len(found.tables)) == ("offsets", 2)
    name = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/relative_positions/rel_embedding"
    np.testing.assert_array_equal(found.tables[0][found.offset[4, 1]], flat[name][4 - 1 + 5].ravel())
