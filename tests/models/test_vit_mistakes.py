"""Vision Transformers that cannot be: each message says what was found, what was expected and what to do."""

import jax
import jax.numpy as jnp
import pytest
from tiny import tiny_vit

from vit_jax.models import build
from vit_jax.types import UserError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stem": "vgg"}, "model.stem is 'vgg'; expected none, resnet"),
        ({"pool": "mean"}, "model.pool is 'mean'; expected token, gap, map, unpooled"),
        ({"pool": "gap", "class_token": "true"}, "model.class_token is 'true'; expected auto, yes, no"),
        ({"gelu": "exact"}, "model.gelu is 'exact'; expected tanh, erf"),
        (
            {"positions": "sincos"},
            "model.positions is 'sincos'; expected learned_1d, learned_2d, sincos_2d, sincos_centred, sincos_mae, relative, "
            "relative_bias, none",
        ),
        ({"positions_at": "first"}, "model.positions_at is 'first'; expected stem, every_layer, shared"),
        ({"patch_size": (4, 0)}, "model.patch_size is 0; expected 1 or more"),
        ({"stem": "resnet", "stem_depths": (1, 0)}, "model.stem_depths is 0; expected 1 or more"),
        ({"stem": "resnet", "stem_width": 0}, "model.stem_width is 0; expected 1 or more"),
        ({"num_classes": -1}, "model.num_classes is -1; expected 0 or more"),
        ({"registers": -1}, "model.registers is -1; expected 0 or more"),
        ({"representation_size": -1}, "model.representation_size is -1; expected 0 or more"),
        ({"layer_scale": -0.1}, "model.layer_scale is -0.1; expected 0 or more"),
        ({"stochastic_depth": 1.0}, "model.stochastic_depth is 1.0; expected at least 0 and below 1"),
        (
            {"class_token": "no"},
            "model.pool=token reads the class token, and model.class_token=no leaves it out; use pool=gap",
        ),
        (
            {"positions": "relative"},
            "model.positions=relative acts in every layer; set model.positions_at=every_layer",
        ),
        (
            {"positions": "relative", "positions_at": "every_layer", "registers": 1},
            "model.positions=relative goes with neither axial nor registers",
        ),
        (
            {"positions": "relative", "positions_at": "every_layer", "axial": True, "pool": "gap"},
            "model.positions=relative goes with neither axial nor registers",
        ),
        (
            {"positions_at": "shared", "registers": 1},
            "model.axial and model.registers want positions at the stem; set model.positions_at=stem",
        ),
        (
            {"positions_at": "every_layer", "axial": True, "pool": "gap"},
            "model.axial and model.registers want positions at the stem; set model.positions_at=stem",
        ),
        (
            {"axial": True},
            "model.axial mixes rows and columns of patches only; use pool=gap or map, and no registers",
        ),
        (
            {"axial": True, "pool": "gap", "registers": 1},
            "model.axial mixes rows and columns of patches only; use pool=gap or map, and no registers",
        ),
    ],
)
def test_what_no_model_can_be_is_an_error(options, message):
    with pytest.raises(UserError) as caught:
        build.abstract_params(tiny_vit(**options), (8, 12))
    assert str(caught.value) == message


def test_every_mistake_is_listed():
    with pytest.raises(UserError) as caught:
        build.abstract_params(tiny_vit(depth=0, pool="mean", positions="relative"), (8, 12))
    assert [line.split(" ")[0] for line in str(caught.value).splitlines()] == [
        "model.depth",
        "model.pool",
        "model.positions=relative",
    ]
    with pytest.raises(UserError, match=r"capture=\('mlp',\); expected any of layers, attention"):
        jax.eval_shape(lambda: tiny_vit().init(jax.random.key(0), jnp.zeros((1, 8, 12, 3)), capture=("mlp",)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": "learned_2d", "width": 9, "num_heads": 3}, r"learned_2d .* model\.width is 9; make it even"),
        ({"positions": "sincos_2d", "width": 6}, r"sincos_2d .* divisible by 4; model\.width is 6"),
    ],
)
def test_a_width_that_positions_cannot_share_out_is_an_error(options, message):
    with pytest.raises(UserError, match=message):
        build.abstract_params(tiny_vit(**options), (8, 12))


def test_sizes_and_rates_no_model_has_are_listed():
    with pytest.raises(UserError) as caught:
        build.abstract_params(tiny_vit(depth=0, mlp_dim=-1, dropout=1.0, attention_dropout=-0.1), (8, 12))
    assert str(caught.value).splitlines() == [
        "model.depth is 0; expected 1 or more",
        "model.mlp_dim is -1; expected 1 or more",
        "model.dropout is 1.0; expected at least 0 and below 1",
        "model.attention_dropout is -0.1; expected at least 0 and below 1",
    ]


def test_heads_that_do_not_divide_the_width_are_an_error():
    with pytest.raises(UserError, match="width 8 is not divisible by 3 heads"):
        build.abstract_params(tiny_vit(num_heads=3), (8, 12))
