"""Every format that weights arrive in gives the numbers of whoever wrote it, and says which file's tensor became which."""

import math
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy_options
import numpy_resnet
import numpy_vit
import pytest
import test_mixer
from checkpoints import (
    agree,
    copy_golden,
    flat,
    golden_answer,
    golden_tensors,
    images,
    run,
    same_bits,
    save_npz,
    save_safetensors,
)
from etils import epath
from flax.traverse_util import unflatten_dict

from vit_jax.convert.load import load
from vit_jax.train.checkpoint import write_params
from vit_jax.types import UserError

BLOCKS = "Transformer/encoderblock"


def linen(name):
    """Later code numbers sub-modules of a block per class."""
    if name.startswith(BLOCKS):
        for old, new in (("Attention_1", "Attention_0"), ("LayerNorm_2", "LayerNorm_1"), ("MlpBlock_3", "MlpBlock_0")):
            name = name.replace(old, new)
    return name


def scanned(tensors):
    """Layers behind one another along a first axis."""
    out = {name: x for name, x in tensors.items() if not name.startswith(f"{BLOCKS}_")}
    for name in tensors:
        if name.startswith(f"{BLOCKS}_0/"):
            leaf = name.removeprefix(f"{BLOCKS}_0/")
            out[f"{BLOCKS}/{leaf}"] = np.stack([tensors[f"{BLOCKS}_{layer}/{leaf}"] for layer in range(2)])
    return out


def prefixed(prefix, tensors):
    return {f"{prefix}{name}": x for name, x in tensors.items()}


OTHERS = {name: np.ones(2, np.float32) for name in ("opt/state/step", "opt/state/param_states/cls/grad_ema")}
TEXT = {name: np.ones(2, np.float32) for name in ("params/txt/head/kernel", "params/t", "params/b")}

LAYOUTS = {
    "native": (lambda tensors: tensors, {}),
    "linen": (lambda tensors: {linen(name): x for name, x in tensors.items()}, {}),
    "opt/target": (
        lambda tensors: prefixed("opt/target/", tensors) | OTHERS,
        dict.fromkeys(OTHERS, "outside opt/target"),
    ),
    "params": (lambda tensors: prefixed("params/", {linen(name): x for name, x in tensors.items()}), {}),
    "params/img": (lambda tensors: prefixed("params/img/", tensors) | TEXT, dict.fromkeys(TEXT, "outside params/img")),
    "scanned": (lambda tensors: scanned({linen(name): x for name, x in tensors.items()}), {}),
    "scanned, params": (lambda tensors: prefixed("params/", scanned(tensors)), {}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_released_layouts_give_every_tensor_to_the_bit(tmp_path, layout):
    tensors = numpy_vit.draw_params(seed=4)
    arrange, aside = LAYOUTS[layout]
    loaded = load(save_npz(tmp_path / "vit.npz", arrange(tensors)))
    same_bits(flat(loaded), tensors)
    assert loaded.source.aside == aside
    expected = [(name, "aside", why) for name, why in aside.items()]
    assert sorted(fate for fate in loaded.report if fate.action != "loaded") == sorted(expected)
    assert sorted(fate.name for fate in loaded.report if fate.action == "loaded") == sorted(tensors)


def test_a_released_file_gives_the_papers_numbers(tmp_path):
    tensors = numpy_vit.draw_params(seed=5, representation=6)
    loaded = load(save_npz(tmp_path / "vit.npz", tensors))
    agree(run(loaded, images()).logits, numpy_vit.forward(tensors, images())["logits"])
    assert (loaded.settings["gelu"], loaded.settings["norm_eps"]) == ("tanh", 1e-6)


@pytest.mark.parametrize("pool", ["token", "map"])
def test_big_visions_positions_are_of_patches_only(tmp_path, pool):
    tensors = numpy_vit.draw_params(seed=6, pool=pool)
    positions = tensors.pop(numpy_vit.POSITIONS)
    patches = positions[:, 1:] if pool == "token" else positions
    stored = {linen(name): x for name, x in tensors.items()} | {"pos_embedding": patches}
    loaded = load(save_npz(tmp_path / "vit.npz", prefixed("params/", stored)))
    # Added before the class token joins: to the class token, nothing.
    added = np.concatenate([np.zeros((1, 1, 8)), patches], axis=1) if pool == "token" else patches
    agree(run(loaded, images()).logits, numpy_vit.forward(tensors, images(), pool=pool, positions=added)["logits"])


def test_bfloat16_stored_as_two_bytes_of_void_is_read_exactly(tmp_path):
    tensors = {name: x.astype(ml_dtypes.bfloat16) for name, x in numpy_vit.draw_params(seed=7).items()}
    loaded = load(save_npz(tmp_path / "vit.npz", {name: x.view("V2") for name, x in tensors.items()}))
    same_bits(flat(loaded), {name: x.astype(np.float32) for name, x in tensors.items()})


@pytest.mark.parametrize("depths", [(1, 1), ()])
def test_a_hybrids_group_norms_are_stored_with_four_axes(tmp_path, depths):
    channels, side = (128, 16) if depths else (16, 8)
    tensors = numpy_vit.draw_params(seed=8, patch=(1, 1))
    tensors |= numpy_vit.draw(numpy_resnet.stem_shapes(depths, 16) | {"embedding/kernel": (1, 1, channels, 8)}, seed=9)
    is_norm = re.compile(r"(.*/)?gn(\d|_root|_proj)/(scale|bias)").fullmatch
    stored = {name: x[None, None, None] if is_norm(name) else x for name, x in tensors.items()}
    assert sum(x.ndim == 4 and x.shape[:3] == (1, 1, 1) for x in stored.values()) == (18 if depths else 2)
    loaded = load(save_npz(tmp_path / "hybrid.npz", stored))
    same_bits(flat(loaded), tensors)
    x = images(side, side, 2)
    features = numpy_resnet.stem({n: t.astype(np.float64) for n, t in tensors.items()}, numpy_vit.pixels(x), depths)
    agree(run(loaded, x).logits, numpy_options.forward(tensors, features)["logits"], 1e-4)
    assert loaded.settings["stem_depths"] == depths


def bit_name(name):
    """Our name of a ResNet's tensor as BiT's files have it, written from their listing."""
    whole = {
        "conv_root/kernel": "root_block/standardized_conv2d/kernel",
        "gn_final/scale": "group_norm/gamma",
        "gn_final/bias": "group_norm/beta",
        "head/kernel": "head/conv2d/kernel",
        "head/bias": "head/conv2d/bias",
    }
    if name in whole:
        return f"resnet/{whole[name]}"
    block, unit, layer, leaf = name.split("/")
    place = {"conv1": "a", "conv2": "b", "conv3": "c", "conv_proj": "a/proj", "gn1": "a", "gn2": "b", "gn3": "c"}[layer]
    kind = "standardized_conv2d" if "conv" in layer else "group_norm"
    leaf = {"scale": "gamma", "bias": "beta"}.get(leaf, leaf)
    return f"resnet/{block}/unit{int(unit[4:]):02d}/{place}/{kind}/{leaf}"


@pytest.mark.parametrize("numbered", [False, True])
def test_bits_own_naming_gives_bits_numbers(tmp_path, numbered):
    shapes = numpy_resnet.bit_shapes((1, 1), 64) | {"head/kernel": (512, 4), "head/bias": (4,)}
    tensors = numpy_vit.draw(shapes, seed=10)
    stored = {bit_name(name): x for name, x in tensors.items()}
    stored["resnet/head/conv2d/kernel"] = stored["resnet/head/conv2d/kernel"][None, None]
    assert "resnet/block2/unit01/a/proj/standardized_conv2d/kernel" in stored
    assert "resnet/block1/unit01/c/group_norm/gamma" in stored
    if numbered:
        stored = {name.replace("b/standardized_conv2d/", "b/standardized_conv2d_1/"): x for name, x in stored.items()}
        stored = {name.replace("c/standardized_conv2d/", "c/standardized_conv2d_2/"): x for name, x in stored.items()}
    loaded = load(save_npz(tmp_path / "bit.npz", stored))
    same_bits(flat(loaded), tensors)
    assert (loaded.settings["depths"], loaded.settings["width_factor"]) == ((1, 1), 1)
    if not numbered:
        x = images(32, 32, 1)
        p = {name: t.astype(np.float64) for name, t in tensors.items()}
        pooled = numpy_resnet.bit(p, numpy_vit.pixels(x), (1, 1)).mean(axis=(1, 2))
        agree(run(loaded, x).logits, pooled @ p["head/kernel"] + p["head/bias"], 1e-4)


def test_a_mixers_file_gives_the_mixers_numbers(tmp_path):
    tensors = numpy_vit.draw(test_mixer.mixer_shapes(**test_mixer.TINY | {"tokens": 4}), seed=11)
    loaded = load(save_npz(tmp_path / "mixer.npz", tensors))
    agree(run(loaded, images()).logits, test_mixer.forward(tensors, images())["logits"])


def test_a_mixer_of_a_grid_that_is_not_square_needs_its_resolution(tmp_path):
    path = save_npz(tmp_path / "mixer.npz", numpy_vit.draw(test_mixer.mixer_shapes(**test_mixer.TINY), seed=11))
    with pytest.raises(UserError, match=r"mixer.npz has 6 patches, which is no square grid; give grid=\(gh, gw\)"):
        load(path)
    assert load(path, grid=(2, 3)).grid == (2, 3)


# By content and not by name


def test_a_file_is_what_it_holds_and_not_what_it_is_called(tmp_path):
    tensors = numpy_vit.draw_params()
    for name in ("weights.bin", "weights.safetensors", "weights"):
        loaded = load(save_npz(tmp_path / name, tensors))
        assert loaded.source.format == "npz"
        same_bits(flat(loaded), tensors)
    for name in ("vit.dat", "vit.npz", "vit"):
        loaded = load(save_safetensors(tmp_path / name, golden_tensors("hf_classifier")), num_heads=3)
        assert loaded.source.format == "hf"
    assert load(save_safetensors(tmp_path / "t.npz", golden_tensors("timm_token")), num_heads=3).source.format == "timm"


# PyTorch's two libraries


def details(loaded):
    return {fate.name: fate.detail for fate in loaded.report}


def test_the_report_names_the_tensor_of_the_file(tmp_path):
    found = details(load(copy_golden("hf_classifier", tmp_path / "hf")))
    block = f"{BLOCKS}_1/MultiHeadDotProductAttention_1"
    assert found["cls"] == "1x1x24, from vit.embeddings.cls_token"
    assert found[f"{block}/query/kernel"] == "24x3x8, from vit.encoder.layer.1.attention.attention.query.weight"
    assert found["head/bias"] == "7, from classifier.bias"
    found = details(load(copy_golden("timm_token", tmp_path / "timm")))
    assert [found[f"{block}/{part}/bias"] for part in ("query", "key", "value")] == [
        "3x8, from blocks.1.attn.qkv.bias"
    ] * 3


# transformers 5 in memory and the hub's files, written side by side.
VERSION_5 = (
    ("encoder.layer.", "layers."),
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)


def version_5(name):
    for old, new in VERSION_5:
        name = name.replace(old, new)
    return name


def test_the_names_of_transformers_5_are_read_and_reported(tmp_path):
    tensors = {version_5(name): x for name, x in golden_tensors("hf_classifier").items()}
    assert "vit.layers.1.mlp.fc2.bias" in tensors
    loaded = load(copy_golden("hf_classifier", tmp_path / "hf", tensors=tensors))
    same_bits(flat(loaded), flat(load(copy_golden("hf_classifier", tmp_path / "hub"))))
    assert details(loaded)[f"{BLOCKS}_0/MlpBlock_3/Dense_1/kernel"] == "40x24, from vit.layers.0.mlp.fc2.weight"


def test_absent_biases_are_zeros_and_the_masked_models_own_tensors_are_set_aside(tmp_path):
    loaded = load(copy_golden("hf_masked", tmp_path / "hf"))
    bias = f"{BLOCKS}_0/MultiHeadDotProductAttention_1/key/bias"
    assert not flat(loaded)[bias].any()
    assert details(loaded)[bias] == "3x8, from nothing: zeros, as the source has no qkv bias"
    aside = {fate.name: fate.detail for fate in loaded.report if fate.action == "aside"}
    why = "of the masked image model, not of the encoder"
    assert aside == dict.fromkeys(("vit.embeddings.mask_token", "decoder.0.weight", "decoder.0.bias"), why)


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


def test_without_a_config_a_file_has_its_librarys_defaults(tmp_path):
    hf = load(save_safetensors(tmp_path / "hf", golden_tensors("hf_classifier")), num_heads=3)
    timm = load(save_safetensors(tmp_path / "timm", golden_tensors("timm_token")), num_heads=3)
    assert [(x.settings["gelu"], x.settings["norm_eps"]) for x in (hf, timm)] == [("erf", 1e-12), ("erf", 1e-6)]


@pytest.mark.parametrize("name", ["hf_classifier", "timm_token"])
def test_heads_that_nothing_tells_are_asked_for(tmp_path, name):
    path = save_safetensors(tmp_path / "alone.safetensors", golden_tensors(name))
    with pytest.raises(
        UserError,
        match=r"does not say how many attention heads it has; give num_heads .*or the folder with its config.json",
    ):
        load(path)
    with pytest.raises(UserError, match=r"it has, and 5 do not divide its width 24; give num_heads"):
        load(path, num_heads=5)
    x, answer = golden_answer(name)
    agree(run(load(path, num_heads=3), x).logits, answer)


def with_registers(entries):
    """timm's model with four registers, its positions of any number."""
    tensors = golden_tensors("timm_token")
    drawn = numpy_vit.draw({"reg_token": (1, 4, 24), "pos_embed": (1, entries, 24)}, seed=12)
    return tensors | drawn


def test_timms_positions_that_fit_two_grids_are_asked_for(tmp_path):
    tensors = with_registers(9)  # 3x3 patches; or 2x2 behind a class token and four registers
    path = save_safetensors(tmp_path / "timm.safetensors", tensors)
    with pytest.raises(UserError, match=r"9 positions fit a square grid with and without prefix tokens; give grid"):
        load(path, num_heads=3)
    without = flat(load(path, num_heads=3, grid=(3, 3)))
    assert np.array_equal(without["Transformer/registers"], tensors["reg_token"])
    assert not without[numpy_vit.POSITIONS][:, 0].any()
    assert np.array_equal(without[numpy_vit.POSITIONS][:, 1:], tensors["pos_embed"])
    behind = flat(load(path, num_heads=3, grid=(2, 2)))
    assert np.array_equal(behind["Transformer/registers"], tensors["reg_token"] + tensors["pos_embed"][:, 1:5])
    assert np.array_equal(behind[numpy_vit.POSITIONS], tensors["pos_embed"][:, [0, 5, 6, 7, 8]])


def test_hugging_faces_class_token_has_a_position_whatever_the_count(tmp_path):
    # 3x5 patches and the class token are 16 entries, which are no 4x4 grid.
    tensors = golden_tensors("hf_classifier")
    tensors["vit.embeddings.position_embeddings"] = numpy_vit.draw({"p": (1, 16, 24)})["p"]
    path = save_safetensors(tmp_path / "hf.safetensors", tensors)
    with pytest.raises(UserError, match=r"has 15 positions, not a square grid, and .* give grid=\(gh, gw\)"):
        load(path, num_heads=3)
    loaded = load(path, num_heads=3, grid=(3, 5))
    assert np.array_equal(flat(loaded)[numpy_vit.POSITIONS], tensors["vit.embeddings.position_embeddings"])


def test_a_tensor_under_two_names_is_an_error_and_not_a_choice(tmp_path):
    tensors = golden_tensors("hf_classifier")
    doubled = tensors | {"layernorm.weight": tensors["vit.layernorm.weight"] + 1}
    with pytest.raises(UserError, match=r"stand for one and the same:\n  .*layernorm.weight and .*layernorm.weight"):
        load(save_safetensors(tmp_path / "hf", doubled), num_heads=3)
    released = numpy_vit.draw_params()
    name = f"{BLOCKS}_0/LayerNorm_2/scale"
    for other in (linen(name), f"{BLOCKS}/LayerNorm_1/scale", "pos_embedding"):
        like = released[numpy_vit.POSITIONS][:, 1:] if other == "pos_embedding" else np.ones((2, 8), np.float32)
        with pytest.raises(UserError, match=r"stand for one|both stacked .* and apart"):
            load(save_npz(tmp_path / "vit.npz", released | {other: like}))


# Our own runs


def test_a_run_of_ours_is_read_with_the_model_it_says(tmp_path):
    tensors = numpy_vit.draw_params(seed=13, pool="gap")
    model = {
        "name": "vit",
        "num_classes": 5,
        "patch_size": [4, 6],
        "width": 8,
        "depth": 2,
        "mlp_dim": 12,
        "num_heads": 2,
    }
    model |= {"pool": "gap", "gelu": "erf", "norm_eps": 1e-3, "stochastic_depth": 0.1}
    meta = {"config": {"model": model}, "grid": [2, 2], "class_names": ["ant", "bee", "cow", "dog", "elk"]}
    folder = write_params(epath.Path(tmp_path / "run"), unflatten_dict(tensors, sep="/"), meta)
    for path in (tmp_path / "run", folder):
        loaded = load(str(path))
        same_bits(flat(loaded), tensors)
        assert (loaded.source.format, loaded.grid, loaded.settings["gelu"]) == ("run", (2, 2), "erf")
        assert loaded.source.meta["class_names"][1] == "bee"
    expected = numpy_options.forward(tensors, images(), pool="gap", gelu=erf_gelu, eps=1e-3)["logits"]
    agree(run(loaded, images()).logits, expected)
    with pytest.raises(
        UserError, match=rf"checkpoints is the folder of a run's checkpoints; give the run's own, {tmp_path}/run"
    ):
        load(str(tmp_path / "run" / "checkpoints"))
    with pytest.raises(UserError, match=r"holds no averaged weights"):
        load(str(folder), weights="average")


def erf_gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def test_a_damaged_run_is_one_clear_error(tmp_path):
    model = {
        "name": "vit",
        "num_classes": 5,
        "patch_size": [4, 6],
        "width": 8,
        "depth": 2,
        "mlp_dim": 12,
        "num_heads": 2,
    }
    tensors = numpy_vit.draw_params()
    meta = {"config": {"model": model}, "grid": [2, 2]}
    folder = Path(write_params(epath.Path(tmp_path / "run"), unflatten_dict(tensors, sep="/"), meta))
    for file in (folder / "params" / "_METADATA", folder / "meta" / "metadata"):
        kept = file.read_bytes()
        for damaged in (kept[: len(kept) // 2], b"", b"[]"):
            file.write_bytes(damaged)
            with pytest.raises(UserError, match=r"cannot be read as a vit_jax checkpoint .*; copy it again"):
                load(str(tmp_path / "run"))
        file.write_bytes(kept)
    same_bits(flat(load(str(tmp_path / "run"))), tensors)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"name": "vit"}, "model.num_classes is missing"),
        ({"name": "cnn"}, "there is no model 'cnn'; expected one of vit, mixer, resnet"),
    ],
    ids=str,
)
def test_a_run_that_does_not_say_its_model_is_an_error(tmp_path, model, message):
    meta = {"config": {"model": model}, "grid": [2, 2]}
    write_params(epath.Path(tmp_path / "run"), {"cls": np.zeros((1, 1, 8), np.float32)}, meta)
    with pytest.raises(UserError, match=message):
        load(str(tmp_path / "run"))
