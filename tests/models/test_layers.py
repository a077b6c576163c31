"""The layer of each parameter, against `get_layer_id_for_vit` of MAE's fine-tuning: 0 for cls_token, pos_embed and patch_embed,
i + 1 for blocks.i, and the number of blocks + 1 for norm, fc_norm and head."""

import pytest
from tiny import tiny_vit

from vit_jax.models.build import abstract_params
from vit_jax.models.layers import find_layers
from vit_jax.models.mixer import MlpMixer
from vit_jax.models.resnet import ResNet


def layers_of(model, resolution=(8, 12)):
    """{name in a looped model: layer}."""
    found = find_layers(abstract_params(model, resolution))
    return {name: layer for slices in found.values() for name, layer in slices}


@pytest.mark.parametrize("scan", [False, True])
def test_tokens_and_positions_come_first_and_norms_and_head_last(scan):
    found = layers_of(tiny_vit(scan=scan, depth=3, registers=2, pool="map", class_token="yes", representation_size=4))
    assert len(found) == len(
        layers_of(tiny_vit(depth=3, registers=2, pool="map", class_token="yes", representation_size=4))
    )
    first = {"cls", "embedding/kernel", "embedding/bias"}
    first |= {"Transformer/posembed_input/pos_embedding", "Transformer/registers"}
    assert {name for name, layer in found.items() if layer == 0} == first
    for i in range(3):
        block = {name for name in found if name.startswith(f"Transformer/encoderblock_{i}/")}
        assert len(block) == 16  # two norms, four projections and two dense layers, with a bias each
        assert {found[name] for name in block} == {i + 1}
    last = {name.split("/")[0] for name, layer in found.items() if layer == 4}
    assert last == {"MAPHead_0", "head", "pre_logits", "Transformer"}
    assert found["Transformer/encoder_norm/scale"] == 4
    assert layers_of(tiny_vit(scan=scan, pool="gap", norm_after_pool=True))["fc_norm/bias"] == 3


def test_positions_of_every_layer_belong_to_their_blocks():
    found = layers_of(tiny_vit(positions_at="every_layer"))
    assert [found[f"Transformer/encoderblock_{i}/posembed_input/pos_embedding"] for i in (0, 1)] == [1, 2]


def test_a_hybrids_stem_is_part_of_the_patches_and_a_mixer_has_blocks_too():
    hybrid = layers_of(tiny_vit(stem="resnet", stem_depths=(1, 1), patch_size=(1, 1), stem_width=4), (16, 16))
    stem = {
        name: layer
        for name, layer in hybrid.items()
        if name.split("/")[0] in ("conv_root", "gn_root", "block1", "block2")
    }
    assert len(stem) > 10
    assert set(stem.values()) == {0}
    mixer = layers_of(MlpMixer(5, (4, 6), 8, 2, 5, 12))
    assert [
        mixer[name] for name in ("stem/kernel", "MixerBlock_0/LayerNorm_0/scale", "MixerBlock_1/LayerNorm_0/scale")
    ] == [0, 1, 2]
    assert (mixer["pre_head_layer_norm/scale"], mixer["head/kernel"]) == (3, 3)


def test_a_resnet_has_no_layers():
    assert set(layers_of(ResNet(5, (1, 1)), (32, 32)).values()) == {0}
