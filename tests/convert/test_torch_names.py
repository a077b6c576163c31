"""Names and layouts of transformers and of timm, there and back."""

import numpy as np
import pytest
from checkpoints import (
    copy_golden,
    flat,
    golden_tensors,
    same_bits,
)

from vit_jax.convert import torch_names
from vit_jax.convert.load import load
from vit_jax.types import UserError

BLOCKS = "Transformer/encoderblock"


def details(loaded):
    return {fate.name: fate.detail for fate in loaded.report}


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


def test_a_layer_computes_the_same_in_either_layout():
    rng = np.random.default_rng(0)
    x, weight, bias = rng.standard_normal((5, 6)), rng.standard_normal((8, 6)), rng.standard_normal(8)
    expected = x @ weight.T + bias  # as PyTorch defines a linear layer
    to_heads, dense = torch_names.LAYOUTS["to_heads"], torch_names.LAYOUTS["dense"]
    assert np.allclose(x @ dense.weight(weight, 2) + dense.bias(bias, 2), expected)
    kernel, offset = to_heads.weight(weight, 2), to_heads.bias(bias, 2)
    assert (kernel.shape, offset.shape) == ((6, 2, 4), (2, 4))
    assert np.allclose(np.einsum("nd,dhk->nhk", x, kernel) + offset, expected.reshape(5, 2, 4))  # PyTorch's view
    heads = rng.standard_normal((5, 2, 3))
    kernel = torch_names.LAYOUTS["from_heads"].weight(weight, 2)
    assert np.allclose(np.einsum("nhk,hkd->nd", heads, kernel), heads.reshape(5, 6) @ weight.T)


def test_a_convolution_computes_the_same_in_either_layout():
    rng = np.random.default_rng(1)
    patch, weight = rng.standard_normal((3, 4, 6)), rng.standard_normal((8, 3, 4, 6))  # channels first
    kernel = torch_names.LAYOUTS["conv"].weight(weight, 0)
    assert kernel.shape == (4, 6, 3, 8)
    expected = (weight * patch).sum(axis=(1, 2, 3))
    assert np.allclose(np.einsum("hwc,hwcd->d", patch.transpose(1, 2, 0), kernel), expected)


@pytest.mark.parametrize("kind", torch_names.LAYOUTS)
def test_every_layout_is_undone_to_the_bit(kind):
    layout, rng = torch_names.LAYOUTS[kind], np.random.default_rng(2)
    shape = (8, 6, 1, 1) if kind == "conv_1x1" else (8, 6, 4, 2)
    weight = rng.standard_normal(shape[: layout.rank]).astype(np.float32)
    bias = rng.standard_normal(8).astype(np.float32)
    assert np.array_equal(layout.weight_back(layout.weight(weight, 2)), weight)
    assert np.array_equal(layout.bias_back(layout.bias(bias, 2)), bias)


@pytest.mark.parametrize(
    ("golden", "rules", "heads"),
    [("hf_classifier", torch_names.HUGGING_FACE, 3), ("timm_average", torch_names.TIMM, 3)],
)
def test_a_file_goes_there_and_back_with_every_tensor(golden, rules, heads):
    tensors = {torch_names.hub_name(name): x for name, x in golden_tensors(golden).items()}
    native, origin = torch_names.to_native(tensors, rules, heads)
    assert set(origin.values()) == set(tensors)
    back, left = torch_names.to_foreign(native, rules, torch_names.count_layers(tensors))
    assert left == []
    same_bits(back, tensors)


def test_a_tensor_that_no_rule_knows_keeps_its_name_and_is_left_on_the_way_back():
    odd = {
        "blocks.0.norm1.weight": np.ones((2, 3)),  # of another rank
        "blocks.0.attn.qkv.bias": np.ones(7),  # no three parts
        "blocks.0.new.weight": np.ones(2),
    }
    native, origin = torch_names.to_native(odd, torch_names.TIMM, 1)
    assert (set(native), origin) == (set(odd), {name: name for name in odd})
    assert torch_names.to_foreign(native, torch_names.TIMM, 1) == ({}, sorted(odd))


def test_two_names_of_one_tensor_are_refused_with_both():
    both = {"layernorm.weight": np.ones(2), "pooler.dense.weight": np.ones((2, 2))}
    assert torch_names.hub_name("vit.layernorm.weight") == "layernorm.weight"
    rules = (("a", "x", "norm"), ("b", "x", "norm"))
    with pytest.raises(UserError, match=r"^a.weight and b.weight stand for one and the same tensor, x/scale$"):
        torch_names.to_native({"a.weight": np.ones(2), "b.weight": np.ones(2)}, rules, 1)
    assert set(torch_names.to_native(both, torch_names.HUGGING_FACE, 1)[0]) == {
        "Transformer/encoder_norm/scale",
        "pre_logits/kernel",
    }


def test_blocks_are_counted_by_their_numbers_of_either_library_and_an_absurd_one_is_one():
    assert torch_names.count_layers({"blocks.0.norm1.weight", "blocks.11.norm1.bias", "norm.weight"}) == 2
    assert torch_names.count_layers({f"vit.encoder.layer.{i}.output.dense.bias" for i in range(12)}) == 12
    assert torch_names.count_layers({"layers.99999999.mlp.fc1.weight"}) == 1
    assert torch_names.count_layers({"head.weight", "myblocks.3.x"}) == 0
