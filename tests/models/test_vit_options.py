"""The encoder's options against numpy; without them, the tree is the released one."""

import numpy as np
import numpy_options
import numpy_vit
import pytest
from tiny import model_shapes, random_images, shapes, tiny_vit
from with_options import ATTENTION, POSITIONS, apart, draw, same


@pytest.mark.parametrize("pool", ["token", "gap", "map"])
def test_without_options_the_tree_is_the_released_one(pool):
    params = numpy_vit.draw_params(pool=pool)
    off = {"registers": 0, "qk_norm": False, "layer_scale": 0.0, "axial": False, "norm_after_pool": False}
    without = {**off, "positions": "learned_1d", "positions_at": "stem", "class_token": "auto", "stem": "none"}
    assert model_shapes(tiny_vit(pool=pool, **without)) == shapes(params)
    # And options without parameters leave it so.
    free = {"stochastic_depth": 0.5, "remat": "dots", "gelu": "erf", "norm_eps": 1e-12, "dropout": 0.1}
    assert model_shapes(tiny_vit(pool=pool, **free)) == shapes(params)


# Positions: the rows of table 8 by its columns.


def test_positions_with_a_table_per_layer():
    at_every_layer = {f"Transformer/encoderblock_{{}}/{POSITIONS}": (1, 5, 8)}
    params = draw(at_every_layer, leave_out=[f"Transformer/{POSITIONS}"])
    same(tiny_vit(positions_at="every_layer"), params, at="every_layer")


def test_positions_with_one_table_for_all_layers():
    params = draw()
    shared = same(tiny_vit(positions_at="shared"), params, at="shared")
    assert apart(shared, numpy_options.forward(params, random_images()))


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["token", "gap"])
@pytest.mark.parametrize("at", ["stem", "every_layer", "shared"])
def test_two_dimensional_positions(at, pool):
    # Of three columns and two rows, so that no table fits in the other's place.
    parent = "Transformer/encoderblock_{}" if at == "every_layer" else "Transformer"
    tables = {f"{parent}/{POSITIONS}_x": (1, 3, 4), f"{parent}/{POSITIONS}_y": (1, 2, 4)}
    params = draw(tables, leave_out=[f"Transformer/{POSITIONS}"], pool=pool)
    model = tiny_vit(pool=pool, positions="learned_2d", positions_at=at)
    same(model, params, random_images(w=18), pool=pool, at=at, grid=(2, 3))


@pytest.mark.parametrize("at", ["stem", "every_layer"])
@pytest.mark.parametrize("pool", ["token", "gap"])
def test_fixed_positions(pool, at):
    params = draw(leave_out=["posembed"], pool=pool)
    model = tiny_vit(pool=pool, positions="sincos_2d", positions_at=at)
    fixed = numpy_options.sincos((2, 3), 8)
    same(model, params, random_images(w=18), pool=pool, at=at, grid=(2, 3), fixed=fixed)


@pytest.mark.parametrize("pool", ["token", "gap"])
def test_relative_positions(pool):
    # 2 * 6 - 1 offsets between patches, and three with the class token.
    table = {
        f"Transformer/encoderblock_{{}}/{ATTENTION}/relative_positions/rel_embedding": (
            11 + 3 * (pool == "token"),
            2,
            4,
        )
    }
    params = draw(table, leave_out=["posembed"], pool=pool)
    model = tiny_vit(pool=pool, positions="relative", positions_at="every_layer")
    with_them = same(model, params, random_images(w=18), pool=pool, grid=(2, 3))
    without = {name: x for name, x in params.items() if "relative" not in name}
    assert apart(with_them, numpy_options.forward(without, random_images(w=18), pool=pool, grid=(2, 3)))


def test_no_positions():
    same(tiny_vit(positions="none"), draw(leave_out=["posembed"]))


# Tokens and pooling


@pytest.mark.parametrize("pool", ["token", "gap"])
def test_registers_follow_the_class_token_and_leave_before_the_last_norm(pool):
    params = draw({"Transformer/registers": (1, 3, 8)}, pool=pool)
    with_them = same(tiny_vit(pool=pool, registers=3), params, pool=pool)
    assert with_them["tokens"].shape[1] == 4 + (pool == "token")
    assert with_them["layers"][0].shape[1] == 7 + (pool == "token")


def test_an_average_leaves_the_class_token_out():
    params = draw()
    expected = same(tiny_vit(pool="gap", class_token="yes"), params, pool="gap")
    assert np.abs(expected["tokens"].mean(axis=1) - expected["pooled"]).max() > 1e-2


@pytest.mark.parametrize("class_token", ["yes", "no"])
def test_the_norm_after_pooling_is_the_only_last_norm(class_token):
    pool = "token" if class_token == "yes" else "gap"
    params = draw({"fc_norm/scale": (8,), "fc_norm/bias": (8,)}, leave_out=["encoder_norm"], pool=pool)
    same(tiny_vit(pool="gap", class_token=class_token, norm_after_pool=True), params, pool="gap", norm_pooled=True)


@pytest.mark.parametrize("class_token", ["yes", "no"])
def test_unpooled_gives_logits_for_every_token(class_token):
    params = draw(pool="token" if class_token == "yes" else "gap")
    expected = same(tiny_vit(pool="unpooled", class_token=class_token), params, pool="unpooled")
    assert expected["logits"].shape == (3, 4 + (class_token == "yes"), 5)


def test_unpooled_has_a_class_token_unless_told_otherwise():
    assert [tiny_vit(pool=pool).has_class_token for pool in ("token", "unpooled", "gap", "map")] == [
        True,
        True,
        False,
        False,
    ]


def test_options_go_together():
    scales = {f"Transformer/encoderblock_{{}}/LayerScale_{branch}/scale": (8,) for branch in (0, 1)}
    norms = {
        f"Transformer/encoderblock_{{}}/{ATTENTION}/{x}_norm/{leaf}": (4,)
        for x in ("query", "key")
        for leaf in ("scale", "bias")
    }
    more = {"Transformer/registers": (1, 2, 8), "fc_norm/scale": (8,), "fc_norm/bias": (8,)}
    options = {"pool": "gap", "class_token": "yes", "registers": 2, "qk_norm": True, "layer_scale": 0.1, "gelu": "erf"}
    params = draw({**scales, **norms, **more}, leave_out=["encoder_norm"])
    same(tiny_vit(norm_after_pool=True, **options), params, pool="gap", norm_pooled=True, gelu=numpy_vit.exact_gelu)
