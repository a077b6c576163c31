"""The one door: a file opened without a word about its architecture gives the paper's numbers, and overrides mean something."""

import math

import jax
import numpy as np
import numpy_options
import numpy_resnet
import numpy_vit
import pytest
import test_mixer
from checkpoints import agree, copy_golden, flat, golden_tensors, images, run, same_bits, save_npz

from vit_jax.convert import load_model
from vit_jax.convert.load import check_head, load
from vit_jax.convert.save import save_model
from vit_jax.models.build import count_params
from vit_jax.types import UserError

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


@pytest.mark.parametrize("what", OPTIONS)
def test_an_option_is_read_off_the_file(tmp_path, what):
    pool, change, settings, told = OPTIONS[what]
    tensors = change(numpy_vit.draw_params(seed=26, pool=pool))
    asked = {"positions": "none"} if what == "no positions" else {}  # which no tensor tells
    loaded = load(save_npz(tmp_path / "vit.npz", tensors), **asked)
    assert {key: loaded.settings[key] for key in SIZES | settings} == SIZES | settings
    same_bits(flat(loaded), tensors)
    agree(run(loaded, images()).logits, numpy_options.forward(tensors, images(), **told)["logits"])


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


def test_what_it_returns_is_the_module_and_its_parameters(tmp_path):
    path = tmp_path / "vit.npz"
    tensors = numpy_vit.draw_params(seed=31)
    module, params = load_model(save_npz(path, tensors))
    logits = jax.jit(module.apply)({"params": params}, numpy_vit.pixels(images()).astype(np.float32)).logits
    agree(logits, numpy_vit.forward(tensors, images())["logits"])
    assert {type(x) for x in jax.tree.leaves(params)} == {np.ndarray}
    again, _ = load_model(path)  # a path that is no text
    assert again == module
    assert count_params(load(path).params) == sum(x.size for x in tensors.values())


# Overrides


def test_unpooled_gives_a_score_for_every_token(tmp_path):
    for pool in ("token", "gap"):
        tensors = numpy_vit.draw_params(seed=32, pool=pool)
        loaded = load(save_npz(tmp_path / f"{pool}.npz", tensors), pool="unpooled")
        expected = numpy_options.forward(tensors, images(), pool="unpooled")["logits"]
        assert expected.shape == (3, 5 if pool == "token" else 4, 5)
        agree(run(loaded, images()).logits, expected)


def test_a_grid_that_is_not_square_is_the_callers_to_say(tmp_path):
    tensors = numpy_vit.draw_params(seed=33, grid=(4, 6))
    path = save_npz(tmp_path / "vit.npz", tensors)
    with pytest.raises(
        UserError, match=r"has 24 positions, not a square grid, and .*vit.npz does not say which; give grid"
    ):
        load(path)
    with pytest.raises(UserError, match=r"pos_embedding is 1x25x8 in the checkpoint, 1x21x8 in the model"):
        load(path, grid=(4, 5))
    x = images(16, 36, 2)
    agree(run(load(path, grid=(4, 6)), x).logits, numpy_vit.forward(tensors, x)["logits"])


def test_another_resolution_resizes_the_positions_by_the_method_named(tmp_path):
    tensors = numpy_vit.draw_params(seed=34)
    path = save_npz(tmp_path / "vit.npz", tensors)
    old = tensors[numpy_vit.POSITIONS].astype(np.float64)
    # Two rows of patches become three, two columns one. With corners aligned: rows 0, 1/2, 1, and column 0; at half-pixel
    # centres: rows -1/6 (repeated: 0), 1/2, 7/6 (1), and column 1/2.
    a, b, c, d = old[0, 1:]
    expected = {"bilinear_corners": [a, (a + c) / 2, c], "bilinear": [(a + b) / 2, (a + b + c + d) / 4, (c + d) / 2]}
    for method, rows in expected.items():
        loaded = load(path, resolution=(12, 6), resize=method)
        assert loaded.grid == (3, 1)
        np.testing.assert_allclose(flat(loaded)[numpy_vit.POSITIONS][0], [old[0, 0], *rows], rtol=1e-6, atol=1e-6)
    x = images(12, 6)
    positions = np.stack([old[0, 0], *expected["bilinear"]])[None]
    agree(run(loaded, x).logits, numpy_vit.forward(tensors, x, positions=positions)["logits"])


def test_a_grey_image_gives_what_its_three_copies_give(tmp_path):
    tensors = numpy_vit.draw_params(seed=35)
    loaded = load(save_npz(tmp_path / "vit.npz", tensors), channels=1)
    grey = images()[..., :1]
    expected = numpy_vit.forward(tensors, np.repeat(grey, 3, axis=-1))["logits"]
    agree(run(loaded, numpy_vit.pixels(grey).astype(np.float32)).logits, expected)
    assert {f.detail for f in loaded.report if f.action == "channels"} == {"3 -> 1 channels"}


@pytest.mark.parametrize("channels", [2, 4, 7])
def test_an_image_of_equal_channels_gives_the_same_with_any_number_of_them(tmp_path, channels):
    tensors = numpy_vit.draw_params(seed=36)
    loaded = load(save_npz(tmp_path / "vit.npz", tensors), channels=channels)
    grey = images()[..., :1]
    expected = numpy_vit.forward(tensors, np.repeat(grey, 3, axis=-1))["logits"]
    agree(run(loaded, np.repeat(numpy_vit.pixels(grey), channels, axis=-1).astype(np.float32)).logits, expected)
    (fate,) = (fate for fate in loaded.report if fate.action != "loaded")
    assert fate == ("embedding/kernel", "channels", f"3 -> {channels} channels")


def test_repeated_channels_give_what_the_image_gave(tmp_path):
    tensors = numpy_vit.draw_params(seed=36)
    loaded = load(save_npz(tmp_path / "vit.npz", tensors), channels=4)
    repeated = numpy_vit.pixels(images())[..., [0, 1, 2, 0]].astype(np.float32)
    agree(run(loaded, repeated).logits, numpy_vit.forward(tensors, images())["logits"])


def test_without_classes_the_head_is_left_and_the_features_stay(tmp_path):
    tensors = numpy_vit.draw_params(seed=37, representation=6)
    loaded = load(save_npz(tmp_path / "vit.npz", tensors), num_classes=0)
    aside = [fate for fate in loaded.report if fate.action == "aside"]
    assert sorted(aside) == [("head/bias", "aside", "num_classes=0"), ("head/kernel", "aside", "num_classes=0")]
    out = run(loaded, images())
    assert out.logits is None
    agree(out.pre_logits, numpy_vit.forward(tensors, images())["pre_logits"])
    headless = without(tensors, "head/kernel", "head/bias")
    same = load(save_npz(tmp_path / "headless.npz", headless))
    assert same.settings["num_classes"] == 0
    same_bits(flat(same), headless)


def test_the_computing_dtype_is_the_callers(tmp_path):
    tensors = numpy_vit.draw_params(seed=38)
    loaded = load(save_npz(tmp_path / "vit.npz", tensors), dtype="bfloat16")
    same_bits(flat(loaded), tensors)
    out = run(loaded, images())
    assert (str(out.tokens.dtype), str(out.logits.dtype)) == ("bfloat16", "float32")
    expected = numpy_vit.forward(tensors, images())["logits"]
    agree(out.logits, expected, 0.1)
    assert np.abs(out.logits - expected).max() > 1e-4


def test_scanned_layers_give_the_same_numbers(tmp_path):
    tensors = numpy_vit.draw_params(seed=39)
    loaded = load(save_npz(tmp_path / "vit.npz", tensors), scan=True)
    name = "Transformer/encoderblock/MlpBlock_3/Dense_0/bias"
    stacked = np.stack([tensors[name.replace("block/", f"block_{layer}/")] for layer in (0, 1)])
    assert np.array_equal(flat(loaded)[name], stacked)
    agree(run(loaded, images()).logits, numpy_vit.forward(tensors, images())["logits"])


def test_the_activation_and_epsilon_are_the_callers_where_the_file_cannot_tell(tmp_path):
    tensors = numpy_vit.draw_params(seed=40)
    loaded = load(save_npz(tmp_path / "vit.npz", tensors), gelu="erf", norm_eps=0.5)

    def erf_gelu(x):
        return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

    expected = numpy_options.forward(tensors, images(), gelu=erf_gelu, eps=0.5)["logits"]
    agree(run(loaded, images()).logits, expected)


def test_fixed_positions_need_their_grid_and_then_load(tmp_path):
    tensors = without(numpy_vit.draw_params(seed=41), "posembed_input/pos_embedding")
    path = save_npz(tmp_path / "vit.npz", tensors)
    with pytest.raises(UserError, match=r"vit.npz does not say the grid of its fixed positions; give grid=\(gh, gw\)"):
        load(path, positions="sincos_2d")
    loaded = load(path, positions="sincos_2d", grid=(2, 2))
    fixed = numpy_options.sincos((2, 2), 8)
    agree(run(loaded, images()).logits, numpy_options.forward(tensors, images(), fixed=fixed)["logits"])


@pytest.mark.parametrize("form", ["npz", "hf_classifier", "timm_token"])
def test_without_position_embeddings_the_choice_is_the_callers(tmp_path, form):
    if form == "npz":
        path = save_npz(tmp_path / "a.npz", without(numpy_vit.draw_params(), "posembed_input/pos_embedding"))
    else:
        rest = {name: x for name, x in golden_tensors(form).items() if "pos" not in name}
        path = copy_golden(form, tmp_path / form, tensors=rest)
    with pytest.raises(
        UserError, match=r"has no position embeddings: .*any \(none\) or with fixed ones \(sincos_2d\)"
    ) as told:
        load(path)
    assert str(told.value).endswith("load it with positions=none or positions=sincos_2d")
    assert load(path, positions="none").settings["positions"] == "none"
    assert load(path, positions="sincos_2d", grid=(4, 4)).settings["positions"] == "sincos_2d"
    # What is written knows what was chosen.
    save_model(load(path, positions="none"), str(tmp_path / "said.npz"), "npz")
    assert load(str(tmp_path / "said.npz")).settings["positions"] == "none"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"poool": "gap"},
            r"load_model has no poool; did you mean 'pool'\? \(known: attention_.*, grid, .*, resolution",
        ),
        (
            {"depths": (1,), "wide": 2},
            r"no depths; did you mean 'depth'\? .*\nload_model has no wide; did you mean 'width'",
        ),
        ({"pool": "mean"}, r"model.pool is 'mean'; expected token or gap or map or unpooled"),
        ({"depth": "2"}, r"model.depth is '2'; expected int"),
        ({"dtype": "float8"}, r"model.dtype is 'float8'; expected float32 or bfloat16"),
        ({"grid": (0, 4)}, r"grid=\(0, 4\); expected \(h, w\)"),
        ({"grid": "2x2", "resolution": 224, "channels": 0, "num_heads": 2.0}, r"(.*expected .*\n?){4}"),
        ({"resize": "nearest"}, r"resize='nearest'; expected one of bilinear_corners, bilinear, bicubic"),
        ({"weights": "ema"}, r"weights='ema'; expected one of raw, average"),
        ({"weights": "average"}, r"is no vit_jax run, so it holds no averaged weights"),
        ({"resolution": (9, 12)}, r"9x12 pixels is not divisible by the patch of 4x6"),
        ({"num_classes": 7}, r"shape: head/kernel is 8x5 in the checkpoint, 8x7 in the model"),
        ({"num_heads": 4}, r"query/kernel is 8x2x4 in the checkpoint, 8x4x2 in the model"),
        ({"pool": "map"}, r"missing in the checkpoint: MAPHead_0/LayerNorm_0/bias 8"),
        ({"class_token": "no"}, r"model.pool=token reads the class token, and model.class_token=no leaves it out"),
    ],
    ids=str,
)
def test_an_override_that_makes_no_sense_says_what_would(tmp_path, overrides, message):
    path = save_npz(tmp_path / "vit.npz", numpy_vit.draw_params())
    with pytest.raises(UserError, match=message):
        load_model(path, **overrides)


# The head


def test_a_head_that_was_never_trained_is_refused(tmp_path):
    tensors = numpy_vit.draw_params()
    check_head(load(save_npz(tmp_path / "trained.npz", tensors)))
    zero = tensors | {"head/kernel": np.zeros((8, 5), np.float32)}
    with pytest.raises(UserError, match=r"the head of .*zero.npz is all zeros: it was never trained, and every class"):
        check_head(load(save_npz(tmp_path / "zero.npz", zero)))
    with pytest.raises(UserError, match=r"trained.npz has no head to classify with; fine-tune it first"):
        check_head(load(str(tmp_path / "trained.npz"), num_classes=0))
