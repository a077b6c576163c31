"""Live comparison with transformers and timm: their models here, ours there, the same numbers (to 1e-5 in float32)."""

import functools
import json

import jax
import numpy as np
import pytest
import torch
import torch_models as peers
from safetensors.torch import save_file
from timm.layers import StdConv2d, resample_abs_pos_embed
from timm.models import vision_transformer
from timm.models.resnetv2 import ResNetV2
from timm.models.resnetv2 import _load_weights as load_bit_weights

from vit_jax.convert import load_model
from vit_jax.convert.load import load
from vit_jax.convert.save import save_model
from vit_jax.models import build
from vit_jax.models.resnet import ResNet

pytestmark = pytest.mark.filterwarnings("default")


def ours(path, x, what="logits", **overrides):
    module, params = load_model(str(path), **overrides)
    return np.asarray(getattr(jax.jit(module.apply)({"params": params}, x), what))


def agree(found, expected):
    assert np.abs(expected).max() > 0.3
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


HUGGING_FACE = [
    ("ViTForImageClassification", "logits", {}),
    ("ViTForImageClassification", "logits", {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3}),
    ("ViTForImageClassification", "logits", {"qkv_bias": False, "num_labels": 2}),
    ("ViTForImageClassification", "logits", {"image_size": (16, 24), "patch_size": (4, 8)}),
    ("ViTModel", "pre_logits", {}),
    ("ViTForMaskedImageModeling", "tokens", {"encoder_stride": 4}),
]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(("kind", "what", "options"), HUGGING_FACE, ids=str)
def test_hugging_face_folders(tmp_path, kind, what, options, seed):
    model = peers.hugging_face(kind, seed, **options)
    peers.save_hugging_face(model, tmp_path / "hf")
    x = peers.images(options.get("image_size", 16))
    agree(ours(tmp_path / "hf", x, what), peers.answer_hugging_face(model, x))


def test_hugging_face_names_of_version_5_and_of_the_hub_are_one(tmp_path):
    model = peers.hugging_face()
    save_file(dict(model.state_dict()), tmp_path / "five.safetensors")
    assert "vit.layers.0.attention.q_proj.weight" in model.state_dict()
    x = peers.images()
    agree(ours(tmp_path / "five.safetensors", x, num_heads=3), peers.answer_hugging_face(model, x))


def test_shards_are_read_as_one(tmp_path):
    model = peers.hugging_face()
    model.save_pretrained(tmp_path / "hf", max_shard_size="8KB")
    assert len(list((tmp_path / "hf").glob("*.safetensors"))) > 2
    x = peers.images()
    agree(ours(tmp_path / "hf", x), peers.answer_hugging_face(model, x))


def test_hugging_face_positions_at_another_resolution(tmp_path):
    model = peers.hugging_face()
    peers.save_hugging_face(model, tmp_path / "hf")
    x = peers.images((24, 32))
    found = ours(tmp_path / "hf", x, resolution=(24, 32), resize="bicubic")
    agree(found, peers.answer_hugging_face(model, x, resize=True))


TIMM = [
    {},
    {"num_classes": 0},
    {"global_pool": "avg"},
    {"global_pool": "avg", "fc_norm": False},
    {"global_pool": "avg", "class_token": False},
    {"no_embed_class": True},
    {"reg_tokens": 3},
    {"reg_tokens": 3, "no_embed_class": True, "global_pool": "avg"},
    {"init_values": 0.1, "qk_norm": True},
    {"qkv_bias": False},
    {"act_layer": "gelu_tanh"},
    {"img_size": (16, 24)},
    {"in_chans": 1},
]


@pytest.mark.parametrize("options", TIMM, ids=str)
def test_timm_folders(tmp_path, options):
    model = peers.timm_vit(**options)
    peers.save_timm(model, tmp_path / "timm")
    x = peers.images(options.get("img_size", 16), channels=options.get("in_chans", 3))
    what = "pre_logits" if options.get("num_classes") == 0 else "logits"
    agree(ours(tmp_path / "timm", x, what), peers.answer(model, x))


@pytest.mark.parametrize(
    ("options", "overrides"),
    [({}, {}), ({"no_embed_class": True}, {}), ({"global_pool": "avg", "class_token": False}, {})],
    ids=str,
)
def test_timm_files_without_a_config(tmp_path, options, overrides):
    model = peers.timm_vit(**options)
    peers.save_timm(model, tmp_path, config=False)
    x = peers.images()
    agree(ours(tmp_path / "model.safetensors", x, num_heads=3, **overrides), peers.answer(model, x))


def test_timm_positions_at_another_resolution(tmp_path):
    model = peers.timm_vit()
    peers.save_timm(model, tmp_path / "timm")
    for size in ((24, 32), (12, 8)):
        larger = peers.timm_vit(img_size=size)
        state = dict(model.state_dict())
        grid = (size[0] // 4, size[1] // 4)
        state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], grid, (4, 4), num_prefix_tokens=1)
        larger.load_state_dict(state)
        x = peers.images(size)
        agree(ours(tmp_path / "timm", x, resolution=size, resize="bicubic_antialias"), peers.answer(larger, x))


def test_a_hugging_face_folder_of_ours_loads_there(tmp_path):
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    peers.save_timm(peers.timm_vit(), tmp_path / "timm")
    for form in ("erf", "tanh"):
        loaded = load(str(tmp_path / "timm"), gelu=form)
        save_model(loaded, str(tmp_path / form), "hf")
        model, info = AutoModelForImageClassification.from_pretrained(tmp_path / form, output_loading_info=True)
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        x = peers.images()
        agree(peers.answer_hugging_face(model.eval(), x), ours(tmp_path / "timm", x, gelu=form))
        processor = AutoImageProcessor.from_pretrained(tmp_path / form)
        pixels = np.full((16, 16, 3), 51, np.uint8)
        assert np.allclose(np.asarray(processor(pixels)["pixel_values"][0]), 51 / 127.5 - 1)


@pytest.mark.parametrize("options", [{}, {"global_pool": "avg"}, {"reg_tokens": 2, "init_values": 0.1}], ids=str)
def test_a_timm_folder_of_ours_loads_there(tmp_path, options):
    peers.save_timm(peers.timm_vit(seed=3, **options), tmp_path / "source")
    save_model(load(str(tmp_path / "source"), gelu="tanh"), str(tmp_path / "written"), "timm")
    model = peers.timm.create_model(f"local-dir:{tmp_path / 'written'}", pretrained=True).eval()
    x = peers.images()
    agree(peers.answer(model, x), ours(tmp_path / "source", x, gelu="tanh"))


def test_timms_own_npz_loader_reads_a_npz_of_ours(tmp_path):
    peers.save_timm(peers.timm_vit(seed=4), tmp_path / "source")
    save_model(load(str(tmp_path / "source")), str(tmp_path / "ours.npz"), "npz")
    model = peers.timm_vit(seed=5)
    vision_transformer._load_weights(model, str(tmp_path / "ours.npz"))
    x = peers.images()
    agree(peers.answer(model, x), ours(tmp_path / "ours.npz", x))
    assert json.loads((tmp_path / "ours.json").read_text())["vit_jax"]["model"]["gelu"] == "erf"


def test_timms_own_npz_loader_reads_a_resnet_of_ours(tmp_path):
    module = ResNet(num_classes=7, depths=(1, 2, 1, 1))
    params = build.init_params(module, jax.random.key(0), (64, 64))
    rng = np.random.default_rng(0)
    flat = {k: np.asarray(v) for k, v in build.flatten_dict(params, sep="/").items()}
    # The head sums 2,048 features: small weights keep logits, and so their float32 rounding, near 1.
    flat = {k: (v + rng.normal(0, 0.04, v.shape)).astype(np.float32) for k, v in flat.items()}
    np.savez(tmp_path / "native.npz", **flat)
    save_model(load(str(tmp_path / "native.npz")), str(tmp_path / "bit.npz"), "npz")
    with np.load(tmp_path / "bit.npz") as written:
        assert "resnet/block2/unit02/b/standardized_conv2d/kernel" in written.files
    convolution = functools.partial(StdConv2d, eps=1e-10)
    model = ResNetV2((1, 2, 1, 1), num_classes=7, stem_type="fixed", conv_layer=convolution).eval()
    load_bit_weights(model, str(tmp_path / "bit.npz"))
    x = peers.images(64)
    with torch.no_grad():
        expected = model(peers.nchw(x)).numpy()
    agree(ours(tmp_path / "bit.npz", x), expected)
