"""Files of transformers and of timm: their heads, positions and biases, and which of their tensors became which."""

import numpy as np
import numpy_vit
import pytest
from checkpoints import (
    agree,
    copy_golden,
    flat,
    golden_answer,
    golden_tensors,
    run,
    save_safetensors,
)

from vit_jax.convert.load import load
from vit_jax.types import UserError

BLOCKS = "Transformer/encoderblock"


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


def test_absent_biases_are_zeros(tmp_path):
    loaded = load(copy_golden("hf_masked", tmp_path / "hf"))
    bias = f"{BLOCKS}_0/MultiHeadDotProductAttention_1/key/bias"
    assert not flat(loaded)[bias].any()
    assert details(loaded)[bias] == "3x8, from nothing: zeros, as the source has no qkv bias"


def test_a_mask_token_without_a_decoder_that_fits_is_set_aside(tmp_path):
    tensors = golden_tensors("hf_masked")
    names, why = (
        ["vit.embeddings.mask_token", "decoder.0.weight", "decoder.0.bias"],
        "of the masked image model, not of the encoder",
    )

    def aside(tensors):
        loaded = load(save_safetensors(tmp_path / str(len(list(tmp_path.iterdir()))), tensors), num_heads=3)
        assert loaded.settings["name"] == "vit"
        return {fate.name: fate.detail for fate in loaded.report if fate.action == "aside"}

    # A stride of 2 pixels, which is not the patch's 4, and no decoder at all.
    strided = tensors | {name: tensors[name][: 2 * 2 * 3] for name in names[1:]}
    assert aside(strided) == dict.fromkeys(names, why)
    assert aside({name: x for name, x in tensors.items() if name not in names[1:]}) == {names[0]: why}


def test_a_masked_model_keeps_its_mask_token_and_its_decoder(tmp_path):
    loaded = load(copy_golden("hf_masked", tmp_path / "hf"))
    assert (loaded.settings["name"], loaded.settings["decoder"], loaded.settings["final_norm"]) == (
        "masked",
        "pixels",
        True,
    )
    found = details(loaded)
    assert found["mask_token"] == "1x1x24, from vit.embeddings.mask_token"
    assert found["decoder/kernel"] == "24x48, from decoder.0.weight"
    np.testing.assert_array_equal(
        flat(loaded)["decoder/kernel"].T, golden_tensors("hf_masked")["decoder.0.weight"][..., 0, 0]
    )


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
