"""Names of the original releases, of big_vision and of BiT: every layout gives every tensor to the bit."""

import re

import numpy as np
import numpy_options
import numpy_resnet
import numpy_vit
import pytest
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

from vit_jax.convert import names
from vit_jax.convert.load import load
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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_bits_names_are_undone_to_the_bit():
    shapes = numpy_resnet.bit_shapes((1, 2), 64) | {"head/kernel": (512, 4), "head/bias": (4,)}
    tensors = numpy_vit.draw(shapes, seed=11)
    stored = names.bit_names(tensors)
    assert set(stored) == {bit_name(name) for name in tensors}
    assert stored["resnet/head/conv2d/kernel"].shape == (1, 1, 512, 4)
    found, aside = names.native_names(stored)
    same_bits(found, tensors)
    assert aside == {}


def test_of_several_prefixes_the_model_is_taken_and_what_lies_outside_is_named():
    stored = {"opt/target/cls": np.ones(1), "opt/state/step": np.ones(1), "params/cls": np.zeros(1)}
    found, aside = names.native_names(stored)
    assert {name: x.tolist() for name, x in found.items()} == {"cls": [1.0]}
    assert aside == {"opt/state/step": "outside opt/target", "params/cls": "outside opt/target"}


def test_every_pair_of_tensors_with_one_name_is_listed():
    tensors = {name: np.ones(1) for name in ("a", "A", "b", "c", "C")}
    with pytest.raises(UserError, match=r"one and the same:\n  a and A\n  c and C$"):
        names.rename(tensors, str.lower)


def test_the_class_token_gets_a_position_that_adds_nothing():
    positions = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    assert names.with_class_position(positions, False) is positions
    found = names.with_class_position(positions, True)
    assert found[0, 0].tolist() == [0, 0, 0, 0]
    assert np.array_equal(found[:, 1:], positions)
