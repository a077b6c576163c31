"""Configs beside a checkpoint: each value is used as its library means it, or is refused; none is guessed."""

import json
from typing import Literal

import pytest
from checkpoints import (
    copy_golden,
    flat,
    save_npz,
)
from damaged import TENSORS, attempt

from vit_jax.convert import claims
from vit_jax.convert.load import load
from vit_jax.types import UserError

ABSURD = [None, 0, -1, 10**30, 10**400, 0.5, "x", "", [], [3], {}, True, float("nan"), float("inf"), "3"]


@pytest.mark.slow
def test_absurd_values_of_a_hugging_face_config_are_refused_or_change_nothing(tmp_path):
    expected = flat(load(copy_golden("hf_classifier", tmp_path / "hf")))
    said = ("num_attention_heads", "image_size", "layer_norm_eps", "hidden_act", "model_type", "id2label", "vit_jax")
    count = 0
    for key in said:
        for value in ABSURD:
            count += 1
            folder = tmp_path / f"{count}"
            copy_golden("hf_classifier", folder)
            config = json.loads((folder / "config.json").read_text()) | {key: value}
            (folder / "config.json").write_text(json.dumps(config))
            message = attempt(folder, expected)
            harmless = {
                "image_size": value in (None, 0, "", [], {}),  # not said: the positions tell
                "layer_norm_eps": value in (0, 0.5),
                "id2label": value in (None, 0, "", [], {}),
                "vit_jax": value == {},
            }
            assert bool(message) != harmless.get(key, False), (key, value, message)


def test_absurd_values_of_a_timm_config_are_refused_or_change_nothing(tmp_path):
    expected = flat(load(copy_golden("timm_token", tmp_path / "timm")))
    args = {"num_heads": 3}
    cases = [{"model_args": args | {key: value}} for key in ("num_heads", "act_layer", "img_size") for value in ABSURD]
    cases += [{"model_args": args | {"global_pool": value}} for value in ABSURD if value not in (None, "")]
    cases += [{"model_args": value} for value in ABSURD]
    cases += [{"label_names": value} for value in (3, "abc", [1], {})]
    refused = 0
    for i, config in enumerate(cases):
        folder = tmp_path / f"{i}"
        copy_golden("timm_token", folder)
        whole = json.loads((folder / "config.json").read_text()) | config
        (folder / "config.json").write_text(json.dumps(whole))
        refused += bool(attempt(folder, expected))
    assert refused >= len(cases) - 10


@pytest.mark.parametrize("text", ["{", "", "[]", "3", "null", '"vit"', "[" * 100_000, "1" * 5000, b"\xff\xfe{}"])
def test_a_config_that_is_no_json_object_is_refused(tmp_path, text):
    path = copy_golden("hf_classifier", tmp_path / "hf")
    (tmp_path / "hf" / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    message = attempt(path, {})
    assert "config.json cannot be read as JSON" in message or "expected a JSON object" in message


OWN = {
    "a list": [],
    "no model": {"model": 3},
    "a model without a name": {"model": {"depth": 1}},
    "another name": {"model": {"name": "cnn", "num_classes": 5}},
    "another family": {"model": {"name": "mixer", "num_classes": 5}},
    "an unknown key": {"model": {"name": "vit", "num_classes": 5, "future_option": True}},
    "a text for a number": {"model": {"name": "vit", "num_classes": 5, "depth": "1"}},
    "a float for a number": {"model": {"name": "vit", "num_classes": 5, "depth": 1.0}},
    "a bool for a number": {"model": {"name": "vit", "num_classes": 5, "registers": True}},
    "a depth beyond reason": {"model": {"name": "vit", "num_classes": 5, "depth": 10**9}},
    "another depth": {"model": {"name": "vit", "num_classes": 5, "depth": 2}},
    "another width": {"model": {"name": "vit", "num_classes": 5, "width": 16}},
    "no patch": {"model": {"name": "vit", "num_classes": 5, "patch_size": [0, 0]}},
    "a patch of three sides": {"model": {"name": "vit", "num_classes": 5, "patch_size": [4, 6, 3]}},
    "an unknown activation": {"model": {"name": "vit", "num_classes": 5, "gelu": "relu"}},
    "no epsilon": {"model": {"name": "vit", "num_classes": 5, "norm_eps": None}},
    "a negative epsilon": {"model": {"name": "vit", "num_classes": 5, "norm_eps": -1}},
    "no number for an epsilon": {"model": {"name": "vit", "num_classes": 5, "norm_eps": float("nan")}},
    "registers that are not there": {"model": {"name": "vit", "num_classes": 5, "registers": 2}},
    "a grid of one side": {"grid": [2]},
    "a grid of text": {"grid": "2x2"},
    "an empty grid": {"grid": [0, 2]},
    "another grid": {"grid": [3, 3]},
    "names that are none": {"class_names": [1, 2]},
}


@pytest.mark.parametrize("what", OWN)
def test_a_section_of_ours_that_makes_no_sense_is_refused(tmp_path, what):
    path = save_npz(tmp_path / "vit.npz", TENSORS)
    (tmp_path / "vit.json").write_text(json.dumps({"vit_jax": OWN[what]}))
    assert attempt(path, TENSORS)
    if (
        "depth" not in what
        and "width" not in what
        and "grid" not in what
        and "patch" not in what
        and "family" not in what
    ):
        folder = copy_golden("timm_token", tmp_path / "timm", config={"vit_jax": OWN[what]})
        assert attempt(folder, {})


@pytest.mark.slow
def test_a_section_of_ours_that_says_little_or_nothing_is_fine(tmp_path):
    path = save_npz(tmp_path / "vit.npz", TENSORS)
    whole = {"vit_jax": {"model": {"name": "vit", "num_classes": 5, "norm_eps": 0, "dropout": 0}}}
    for own in ({}, {"vit_jax": {}}, {"vit_jax": {"grid": [2, 2]}}, {"accuracy": 0.5}, whole):
        (tmp_path / "vit.json").write_text(json.dumps(own))
        assert attempt(path, TENSORS) == ""
    (tmp_path / "vit.json").write_text("{ someone else's notes")
    assert attempt(path, TENSORS) == ""
    (tmp_path / "vit.json").write_text('{"vit_jax": {')
    assert "vit.json cannot be read as JSON" in attempt(path, TENSORS)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("hf_classifier", {"model_type": "dinov2"}, r"model_type 'dinov2'; expected 'vit'"),
        (
            "hf_classifier",
            {"hidden_act": "relu"},
            r"hidden_act 'relu' is not known here; expected one of gelu, gelu_new",
        ),
        ("hf_encoder", {"pooler_act": "gelu"}, r"pooler_act 'gelu'; expected 'tanh'"),
        (
            "timm_token",
            {"model_args": {"num_heads": 3, "act_layer": "quick_gelu"}},
            r"act_layer 'quick_gelu' is not known",
        ),
        ("timm_token", {"model_args": {"num_heads": 3, "global_pool": "map"}}, r"global_pool 'map' is not known here"),
    ],
    ids=str,
)
def test_a_config_of_another_model_is_refused(tmp_path, name, config, message):
    with pytest.raises(UserError, match=message) as caught:
        load(copy_golden(name, tmp_path / "other", config=config))
    assert str(tmp_path / "other") in str(caught.value)


@pytest.mark.parametrize(
    ("act", "kind"), [("gelu", "erf"), ("gelu_new", "tanh"), ("gelu_pytorch_tanh", "tanh"), ("gelu_fast", "tanh")]
)
def test_the_activation_and_the_epsilon_follow_the_config(tmp_path, act, kind):
    loaded = load(copy_golden("hf_classifier", tmp_path / "hf", config={"hidden_act": act, "layer_norm_eps": 1e-3}))
    assert (loaded.settings["gelu"], loaded.settings["norm_eps"]) == (kind, 1e-3)


SIZES = {
    "model.stem_depths is (1000000000,); expected at most 1,000": {"stem_depths": [10**9]},
    "model.depth is 1,001; expected at most 1,000": {"depth": 1001},
    "model.stem_depths has 20 numbers; expected at most 16": {"stem_depths": [1] * 20},
    "model.stem_depths is (500, 501); expected at most 1,000": {"stem_depths": [500, 501]},
    "model.registers is 16,777,217; expected at most 16,777,216": {"registers": 2**24 + 1},
    "model.width is 100,000,000,000,000": {"width": 10**14},
}


@pytest.mark.parametrize("message", SIZES)
def test_a_size_beyond_any_model_is_refused_before_the_model_is_made(tmp_path, message):
    path = save_npz(tmp_path / "vit.npz", TENSORS)
    own = {"model": {"name": "vit", "num_classes": 5, "stem": "resnet", **SIZES[message]}}
    (tmp_path / "vit.json").write_text(json.dumps({"vit_jax": own}))
    assert message in attempt(path, TENSORS)


def test_a_grid_beyond_any_image_is_refused_before_its_positions_are_made(tmp_path):
    path = save_npz(tmp_path / "vit.npz", TENSORS)
    for model in ({}, {"positions": "sincos_2d"}, {"positions": "relative", "positions_at": "every_layer"}):
        own = {"grid": [10**5, 10**5], "model": {"name": "vit", "num_classes": 5, **model}}
        (tmp_path / "vit.json").write_text(json.dumps({"vit_jax": own}))
        assert "the grid is of 100000 x 100000 patches; expected at most 65,536" in attempt(path, TENSORS)
    folder = copy_golden("hf_classifier", tmp_path / "hf", config={"image_size": 10**9})
    assert "patches; expected at most 65,536" in attempt(folder, {})


def test_a_section_of_ours_that_is_of_another_model_than_the_tensors_says_both(tmp_path):
    path = save_npz(tmp_path / "vit.npz", TENSORS)
    own = {"model": {"name": "vit", "num_classes": 5, "width": 16, "patch_size": [4, 4], "num_heads": 2}}
    (tmp_path / "vit.json").write_text(json.dumps({"vit_jax": own}))
    message = attempt(path, TENSORS)
    assert (
        "of another model than its tensors:\n  patch_size is (4, 4), and of the tensors (4, 6)\n  width is 16"
        in message
    )
    assert "num_heads" not in message


@pytest.mark.parametrize("key", ["model_type", "hidden_act", "image_size", "layer_norm_eps", "num_attention_heads"])
def test_values_of_a_config_are_shown_short(tmp_path, key):
    folder = copy_golden("hf_classifier", tmp_path / "hf", config={key: "\x1b" + "a" * 10**6})
    message = attempt(folder, {})
    assert key in message or "images of" in message
    assert len(message) < 500


@pytest.mark.parametrize(
    ("value", "hint", "is_one"),
    [
        (3, int, True),
        (True, int, False),
        (3.0, int, False),
        (3, float, True),
        (float("nan"), float, False),
        (float("inf"), float, False),
        (10**400, float, False),  # no float, and asking must not fail
        (True, float, False),
        (1, bool, False),
        ("tanh", Literal["tanh", "erf"], True),
        ("relu", Literal["tanh", "erf"], False),
        (["tanh"], Literal["tanh", "erf"], False),
        ([2, 3], tuple[int, int], True),
        ([2, 3, 4], tuple[int, int], False),
        ([2, 3.0], tuple[int, int], False),
        ((), tuple[int, ...], True),
        ("23", tuple[int, int], False),
    ],
    ids=str,
)
def test_a_value_fits_its_type_exactly(value, hint, is_one):
    assert claims.fits(value, hint) is is_one


def test_pixels_are_normalised_as_the_processor_says_else_as_timm_does_else_as_all_released_weights():
    mean, std = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
    timm = {"pretrained_cfg": {"mean": [0.1], "std": [0.2]}}
    processor = {"image_mean": mean, "image_std": std}
    assert claims.pixel_statistics(timm, processor) == {"pixel_mean": mean, "pixel_std": std}
    assert claims.pixel_statistics(timm, {}) == {"pixel_mean": [0.1], "pixel_std": [0.2]}
    for config in ({}, {"pretrained_cfg": "vit"}, {"pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}):
        assert claims.pixel_statistics(config, {}) == {}
    # Without normalisation pixels stay in [0, 1]: mean 0 and deviation 1, whatever else is said.
    assert claims.pixel_statistics(timm, processor | {"do_normalize": False}) == {
        "pixel_mean": [0.0],
        "pixel_std": [1.0],
    }
    with pytest.raises(UserError, match=r"the images' std is None; expected a list of numbers, one per channel"):
        claims.pixel_statistics({}, {"image_mean": mean})


def test_a_grid_is_the_image_divided_by_the_patch_and_what_is_left_over_is_cut():
    assert claims.grid_of_config({"image_size": 224}, (16, 14)) == (14, 16)
    assert claims.grid_of_config({"image_size": [100, 60]}, (16, 16)) == (6, 3)
    assert claims.grid_of_config({"model_args": {"img_size": 32}}, (8, 8)) == (4, 4)
    assert claims.grid_of_config({}, (16, 16)) is None
    with pytest.raises(UserError, match=r"config.json says images of 8; expected pixels, at least the patch of 16x16"):
        claims.grid_of_config({"image_size": 8}, (16, 16))


def test_classes_are_named_in_the_order_of_their_numbers():
    labels = {str(i): f"class {i}" for i in (10, 2, 0, 1, *range(3, 10))}  # as a file may list them
    assert claims.class_names({"id2label": labels}) == [f"class {i}" for i in range(11)]
    assert claims.class_names({"label_names": ["ant", "bee"]}) == ["ant", "bee"]
    assert claims.class_names({}) is None
    with pytest.raises(UserError, match=r"id2label is no object with keys 0, 1, \.\.\."):
        claims.class_names({"id2label": {"0": "ant", "2": "bee"}})


def test_every_mistake_of_a_model_section_is_in_one_message():
    with pytest.raises(UserError) as caught:
        claims.check_settings({"name": "vit", "depth": "2", "gelu": "relu", "hidden": 3})
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert lines[:4] == [
        "these settings are no model's:",
        "model.num_classes is missing",
        "model.depth is '2'; expected int",
        "model.gelu is 'relu'; expected tanh or erf",
    ]
    assert lines[4].startswith("model.hidden is no option of vit; it has ")
    assert len(lines) == 5


def test_only_the_sizes_that_tensors_show_may_contradict_a_claim():
    tensors = {"width": 8, "depth": 2, "pool": "token"}
    claims.check_against(tensors, {"width": 8, "depth": 2, "pool": "gap", "gelu": "erf"})
    with pytest.raises(UserError) as caught:
        claims.check_against(tensors, {"width": 16, "depth": 3})
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        "width is 16, and of the tensors 8",
        "depth is 3, and of the tensors 2",
    ]
