"""The one door: a file opened without a word about its architecture gives the paper's numbers, and overrides mean something."""

import math

import jax
import numpy as np
import numpy_options
import numpy_vit
import pytest
from checkpoints import agree, copy_golden, flat, golden_tensors, images, run, same_bits, save_npz

from vit_jax.convert import load_model
from vit_jax.convert.load import check_head, load
from vit_jax.convert.save import save_model
from vit_jax.models.build import count_params
from vit_jax.types import UserError


def without(tensors, *ends):
    return {name: x for name, x in tensors.items() if not name.endswith(ends)}


@pytest.mark.slow
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


@pytest.mark.slow
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
            r"load_model has no poool; did you mean 'pool'\? \(known: attention, attention_.*, grid, .*, resolution",
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
