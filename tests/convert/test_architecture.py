"""A model inferred from its tensors: every size and option is read off the file, and what is no model is refused."""

import random

import numpy as np
import numpy_options
import numpy_resnet
import numpy_vit
import pytest
import test_mixer
from checkpoints import (
    agree,
    flat,
    golden_tensors,
    images,
    run,
    same_bits,
    save_npz,
    save_safetensors,
)
from damaged import TENSORS, attempt

from vit_jax.convert.architecture import has_class_token, infer_grid, infer_settings
from vit_jax.convert.load import load
from vit_jax.types import UserError


def wrong_shapes(x):
    """An axis more before or behind, one in all, none, one split in two."""
    split = [x.reshape(*x.shape[:-1], x.shape[-1] // 2, 2)] if x.ndim and x.shape[-1] % 2 == 0 else []
    wrong = [x[None], x[..., None], x.reshape(-1), x.reshape(-1)[0].reshape(()), *split]
    return [np.ascontiguousarray(y).reshape(y.shape) for y in wrong if y.shape != x.shape]


@pytest.mark.slow
def test_ranks_are_never_guessed(tmp_path):
    rng = random.Random(8)
    for i, (name, x) in enumerate(sorted(TENSORS.items())):
        for wrong in rng.sample(wrong_shapes(x), 2):
            path = save_npz(tmp_path / f"{i}.npz", TENSORS | {name: wrong})
            assert attempt(path, TENSORS), (name, wrong.shape)


@pytest.mark.slow
@pytest.mark.parametrize("golden", ["hf_classifier", "timm_token"])
def test_ranks_of_pytorchs_tensors_are_never_guessed(tmp_path, golden):
    tensors, rng = golden_tensors(golden), random.Random(9)
    for i, (name, x) in enumerate(sorted(tensors.items())):
        if ".1." in name:
            continue  # as .0.
        for wrong in rng.sample(wrong_shapes(x), 1):
            path = save_safetensors(tmp_path / f"{i}", tensors | {name: wrong})
            assert attempt(path, {}, num_heads=3), (name, wrong.shape)


def test_absurd_layer_numbers_cost_nothing_and_are_named(tmp_path):
    for i, number in enumerate(("99999999", "1000000", "00001", "-1", "9" * 5000, "٣")):
        extra = f"Transformer/encoderblock_{number}/LayerNorm_0/scale"
        message = attempt(save_npz(tmp_path / f"{i}.npz", TENSORS | {extra: np.ones(8, np.float32)}), TENSORS)
        assert extra[:400] in message  # names of 5,000 characters are cut
    stacked = {"Transformer/encoderblock/LayerNorm_0/scale": np.ones((50_000,), np.float32)}
    rest = {name: x for name, x in TENSORS.items() if "encoderblock" not in name}
    assert attempt(save_npz(tmp_path / "stacked.npz", rest | stacked), TENSORS)
    for golden, name in (
        ("hf_classifier", "vit.encoder.layer.99999999.layernorm_before.bias"),
        ("timm_token", "blocks.99999999.norm1.bias"),
    ):
        extra = golden_tensors(golden) | {name: np.ones(24, np.float32)}
        message = attempt(save_safetensors(tmp_path / golden, extra), {}, num_heads=3)
        assert "not in the model" in message
        assert "99999999" in message


@pytest.mark.slow
def test_a_model_of_ten_thousand_layers_is_refused_at_once(tmp_path):
    tensors = {name: x for name, x in TENSORS.items() if "encoderblock" not in name}
    for name, x in TENSORS.items():
        if "encoderblock_0" in name:
            stacked = np.zeros((10_000, *([1] * x.ndim)), np.float32)
            tensors[name.replace("encoderblock_0", "encoderblock")] = stacked
    assert "model.depth is 10,000; expected at most 1,000" in attempt(save_npz(tmp_path / "deep.npz", tensors), TENSORS)


# Sizes of `numpy_vit.draw_params`, as a model section that was read off the file.
SIZES = {"name": "vit", "patch_size": (4, 6), "width": 8, "depth": 2, "mlp_dim": 12, "num_heads": 2, "num_classes": 5}
BLOCKS = [f"Transformer/encoderblock_{layer}" for layer in range(2)]
ATTENTION = "MultiHeadDotProductAttention_1"


def without(tensors, *ends):
    return {name: x for name, x in tensors.items() if not name.endswith(ends)}


def with_layer_scale(tensors):
    return tensors | numpy_vit.draw({f"{block}/LayerScale_{i}/scale": (8,) for block in BLOCKS for i in (0, 1)}, 20)


def with_qk_norm(tensors):
    norms = [f"{block}/{ATTENTION}/{part}_norm" for block in BLOCKS for part in ("query", "key")]
    return tensors | numpy_vit.draw({f"{norm}/{leaf}": (4,) for norm in norms for leaf in ("scale", "bias")}, 21)


def with_registers(tensors):
    return tensors | numpy_vit.draw({"Transformer/registers": (1, 3, 8)}, 22)


def with_pooled_norm(tensors):
    return {name.replace("Transformer/encoder_norm", "fc_norm"): x for name, x in tensors.items()}


def with_positions_2d(tensors, place="Transformer"):
    tables = {f"{place}/posembed_input/pos_embedding_{axis}": (1, 2, 4) for axis in "xy"}
    return without(tensors, "posembed_input/pos_embedding") | numpy_vit.draw(tables, 23)


def with_positions_everywhere(tensors):
    tables = {f"{block}/posembed_input/pos_embedding": (1, 5, 8) for block in BLOCKS}
    return without(tensors, "posembed_input/pos_embedding") | numpy_vit.draw(tables, 24)


def with_relative_positions(tensors):
    tables = {f"{block}/{ATTENTION}/relative_positions/rel_embedding": (2 * 4 - 1 + 3, 2, 4) for block in BLOCKS}
    return without(tensors, "posembed_input/pos_embedding") | numpy_vit.draw(tables, 25)


def axial(tensors):
    halves = {}
    for name, x in tensors.items():
        block = next((block for block in BLOCKS if name.startswith(block)), None)
        if block:
            halves[name.replace(block, f"{block}/row")] = x
            halves[name.replace(block, f"{block}/column")] = x + np.float32(0.1)
        else:
            halves[name] = x
    return halves


# What was done to the plain model: pool it is drawn with, change, what the file must be read as, what numpy is told.
OPTIONS = {
    "plain": ("token", dict, {"pool": "token", "class_token": "yes", "positions": "learned_1d"}, {}),
    "average": ("gap", dict, {"pool": "gap", "class_token": "no"}, {"pool": "gap"}),
    "registers": ("token", with_registers, {"registers": 3}, {}),
    "layer scale": ("token", with_layer_scale, {"layer_scale": 1e-5}, {}),
    "qk norm": ("token", with_qk_norm, {"qk_norm": True}, {}),
    "norm of the average": (
        "gap",
        with_pooled_norm,
        {"pool": "gap", "norm_after_pool": True},
        {"pool": "gap", "norm_pooled": True},
    ),
    "norm of the average beside a class token": (
        "token",
        with_pooled_norm,
        {"pool": "gap", "class_token": "yes", "norm_after_pool": True},
        {"pool": "gap", "norm_pooled": True},
    ),
    "no positions": (
        "token",
        lambda tensors: without(tensors, "posembed_input/pos_embedding"),
        {"positions": "none"},
        {},
    ),
    "2-D positions": ("token", with_positions_2d, {"positions": "learned_2d"}, {}),
    "a table for every layer": (
        "token",
        with_positions_everywhere,
        {"positions": "learned_1d", "positions_at": "every_layer"},
        {"at": "every_layer"},
    ),
    "relative positions": (
        "token",
        with_relative_positions,
        {"positions": "relative", "positions_at": "every_layer"},
        {"at": "every_layer"},
    ),
    "axial": ("gap", axial, {"axial": True, "pool": "gap"}, {"pool": "gap"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", OPTIONS)
def test_an_option_is_read_off_the_file(tmp_path, what):
    pool, change, settings, told = OPTIONS[what]
    tensors = change(numpy_vit.draw_params(seed=26, pool=pool))
    asked = {"positions": "none"} if what == "no positions" else {}  # which no tensor tells
    loaded = load(save_npz(tmp_path / "vit.npz", tensors), **asked)
    assert {key: loaded.settings[key] for key in SIZES | settings} == SIZES | settings
    same_bits(flat(loaded), tensors)
    agree(run(loaded, images()).logits, numpy_options.forward(tensors, images(), **told)["logits"])


@pytest.mark.slow
def test_a_map_head_and_a_representation_layer_are_read_off_the_file(tmp_path):
    tensors = numpy_vit.draw_params(seed=27, pool="map", representation=6)
    loaded = load(save_npz(tmp_path / "vit.npz", tensors))
    assert (loaded.settings["pool"], loaded.settings["representation_size"]) == ("map", 6)
    out, expected = run(loaded, images()), numpy_vit.forward(tensors, images(), pool="map")
    agree(out.pre_logits, expected["pre_logits"])
    agree(out.logits, expected["logits"])


@pytest.mark.parametrize(
    ("depths", "width", "stride"),
    [((), 16, 4), ((1,), 8, 4), ((1, 2), 8, 8), ((1, 1, 1), 4, 16), ((1, 1, 1, 1), 2, 32)],
)
def test_a_hybrids_stem_and_its_image_size_are_read_off_the_file(tmp_path, depths, width, stride):
    channels = width * 2 ** (len(depths) - 1) * 4 if depths else width
    tensors = numpy_vit.draw_params(seed=28, patch=(1, 1))
    tensors |= numpy_vit.draw(
        numpy_resnet.stem_shapes(depths, width) | {"embedding/kernel": (1, 1, channels, 8)}, seed=9
    )
    loaded = load(save_npz(tmp_path / "hybrid.npz", tensors))
    found = {key: loaded.settings[key] for key in ("stem", "stem_depths", "stem_width", "patch_size")}
    assert found == {"stem": "resnet", "stem_depths": depths, "stem_width": width, "patch_size": (1, 1)}
    same_bits(flat(loaded), tensors)
    # The positions are of 2x2 patches: it loads, so the image that they came from had 2 x stride pixels.
    assert loaded.grid == (2, 2)
    assert loaded.module.grid((2 * stride, 2 * stride)) == (2, 2)


def test_a_resnets_stages_and_width_are_read_off_the_file(tmp_path):
    tensors = numpy_vit.draw(numpy_resnet.bit_shapes((2, 1), 64) | {"head/kernel": (512, 3), "head/bias": (3,)}, 29)
    loaded = load(save_npz(tmp_path / "resnet.npz", tensors))
    assert loaded.settings == {"name": "resnet", "depths": (2, 1), "width_factor": 1, "num_classes": 3}
    same_bits(flat(loaded), tensors)


def test_a_mixers_sizes_are_read_off_the_file(tmp_path):
    tensors = numpy_vit.draw(test_mixer.mixer_shapes(**test_mixer.TINY | {"tokens": 4}), seed=30)
    loaded = load(save_npz(tmp_path / "mixer.npz", tensors))
    expected = {"name": "mixer", "patch_size": (4, 6), "width": 8, "depth": 2, "tokens_mlp_dim": 5}
    expected |= {"channels_mlp_dim": 12, "num_classes": 3, "gelu": "tanh"}
    assert (loaded.settings, loaded.grid) == (expected, (2, 2))


def test_a_grid_is_that_of_the_tables_else_a_square_and_else_unknown():
    def positions(entries, **more):
        return {numpy_vit.POSITIONS: np.zeros((1, entries, 8))} | more

    token, average = {"class_token": "yes"}, {"class_token": "no"}
    assert infer_grid(positions(197), token) == (14, 14)
    assert infer_grid(positions(196), average) == (14, 14)
    assert infer_grid(positions(196), token) is None  # 195 patches
    assert infer_grid(positions(25), token) is None  # 24 are 4 x 6, or 3 x 8
    assert infer_grid(positions(1), token) is None
    assert infer_grid({}, token) is None
    place = numpy_vit.POSITIONS
    assert infer_grid({f"{place}_x": np.zeros((1, 6, 4)), f"{place}_y": np.zeros((1, 4, 4))}, token) == (4, 6)


def test_a_model_has_a_class_token_where_it_is_read_unless_a_key_says_otherwise():
    assert [has_class_token({"pool": pool}) for pool in ("token", "unpooled", "gap", "map")] == [
        True,
        True,
        False,
        False,
    ]
    assert has_class_token({})
    assert has_class_token({"pool": "gap", "class_token": "yes"})
    assert not has_class_token({"pool": "unpooled", "class_token": "no"})


def test_tensors_of_no_model_are_answered_with_what_a_model_has():
    with pytest.raises(UserError, match=r"expected embedding/kernel .* found 5 tensors: a, b, c, d, \.\.\.$"):
        infer_settings({name: np.zeros(2) for name in "edcba"})
    with pytest.raises(UserError, match=r"found 0 tensors: none"):
        infer_settings({})
    with pytest.raises(
        UserError, match=r"\n  embedding/kernel is 4x6; expected 4 axes\n  head/kernel is a scalar; exp"
    ):
        infer_settings({"embedding/kernel": np.zeros((4, 6)), "head/kernel": np.zeros(())})
