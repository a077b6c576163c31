"""Live comparison of masked models with transformers: losses and reconstructions of seeded models, to 1e-5 in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch_models as peers
from safetensors.torch import load_file, save_file

from vit_jax.convert.load import load
from vit_jax.convert.save import save_model
from vit_jax.train.masking import PatchGrid
from vit_jax.train.objectives import masked_autoencoding, simmim
from vit_jax.types import Batch

pytestmark = pytest.mark.filterwarnings("default")


def close(found, expected):
    assert np.abs(expected).max() > 0.3
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def outputs_of(loaded, x, **drawn):
    return jax.jit(loaded.module.apply)({"params": loaded.params}, x, **drawn)


def loss_of(objective, outputs, x, **extra):
    """The mean over the batch of our loss, for images in [-1, 1]."""
    outputs = outputs._replace(extra={**outputs.extra, **{name: jnp.asarray(value) for name, value in extra.items()}})
    return float(objective.values(outputs, Batch(jnp.asarray((x + 1) * 127.5), None, None))["loss"].mean())


def hide(x, patch, count):
    """`count` patches of each image."""
    n = x.shape[1] * x.shape[2] // patch**2
    return np.random.default_rng(3).permuted(np.tile(np.arange(n) < count, (len(x), 1)), axis=1)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {"encoder_stride": 4},
        {"num_channels": 1, "encoder_stride": 4},
        {"patch_size": 8, "encoder_stride": 8, "hidden_act": "gelu_new", "layer_norm_eps": 1e-3},
        {"image_size": 24, "patch_size": 6, "encoder_stride": 6, "num_channels": 4, "qkv_bias": False},
    ],
    ids=str,
)
def test_masked_image_models(tmp_path, options, seed):
    model = peers.hugging_face("ViTForMaskedImageModeling", seed, **options)
    peers.save_hugging_face(model, tmp_path / "hf")
    size, patch = options.get("image_size", 16), options.get("patch_size", 4)
    x = peers.images(size, channels=options.get("num_channels", 3))
    hidden = hide(x, patch, 3)
    loss, expected = peers.answer_masked(model, x, hidden)
    loaded = load(str(tmp_path / "hf"))
    outputs = outputs_of(loaded, x, hidden=hidden)
    close(outputs.extra["pixels"], expected)
    objective = simmim(grid=PatchGrid((size // patch, size // patch), (patch, patch)), mask_patch=(patch, patch))
    assert loss_of(objective, outputs, x, hidden=hidden) == pytest.approx(float(loss), rel=1e-5)
    # And back: transformers loads every tensor of ours and answers the same.
    save_model(loaded, str(tmp_path / "back"), "hf")
    again, info = type(model).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    close(peers.answer_masked(again.eval(), x, hidden)[1], expected)  # it has two tanh GELUs, and we write one


MAES = [
    {"norm_pix_loss": True},
    {"norm_pix_loss": False, "mask_ratio": 0.5},
    {"num_channels": 1, "norm_pix_loss": True, "layer_norm_eps": 1e-3},
    {"image_size": (8, 32), "norm_pix_loss": True},
    {"image_size": 24, "patch_size": 6, "norm_pix_loss": False, "num_channels": 1},
]


@pytest.mark.parametrize("options", MAES, ids=str)
def test_maes(tmp_path, options):
    model = peers.hugging_face_mae(1, **options)
    peers.save_hugging_face(model, tmp_path / "hf")
    x = peers.images(options.get("image_size", 16), channels=options.get("num_channels", 3))
    noise = np.random.default_rng(4).random((2, 16)).astype(np.float32)
    loss, expected, mask = peers.answer_mae(model, x, noise)
    loaded = load(str(tmp_path / "hf"))
    outputs = outputs_of(loaded, x, noise=noise)
    close(outputs.extra["patches"], expected)
    np.testing.assert_array_equal(outputs.extra["hidden"], mask)
    patch = options.get("patch_size", 4)
    grid = PatchGrid((x.shape[1] // patch, x.shape[2] // patch), (patch, patch))
    objective = masked_autoencoding(grid=grid, norm_pix=options["norm_pix_loss"])
    assert loss_of(objective, outputs, x) == pytest.approx(float(loss), rel=1e-5)
    save_model(loaded, str(tmp_path / "back"), "hf")
    again, info = type(model).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert again.config.mask_ratio == options.get("mask_ratio", 0.75)
    np.testing.assert_array_equal(peers.answer_mae(again.eval(), x, noise)[1], expected)


@pytest.mark.parametrize(
    "spelling", ["in memory", "decoder_layers", "decoder_encoder.layer", "MAE's own", "MAE's own npz"]
)
def test_every_spelling_of_an_maes_decoder_is_one_model(tmp_path, spelling):
    model = peers.hugging_face_mae(2, decoder_num_attention_heads=16, decoder_hidden_size=32)
    peers.save_hugging_face(model, tmp_path / "hf")
    expected = load(str(tmp_path / "hf"))
    path = tmp_path / "other"
    if spelling == "in memory":
        save_file(dict(model.state_dict()), path)
    elif spelling.startswith("MAE"):
        own = {name: x.contiguous() for name, x in peers.maes_own_names(model).items()}
        assert {"decoder_embed.weight", "decoder_blocks.1.attn.qkv.bias", "decoder_pos_embed", "mask_token"} <= set(own)
        if spelling.endswith("npz"):
            path = tmp_path / "other.npz"
            np.savez(path, **{name: x.numpy() for name, x in own.items()})
        else:
            save_file(own, path)
    else:
        stored = load_file(tmp_path / "hf" / "model.safetensors")
        save_file(
            {
                name.replace("decoder_encoder.layer", "decoder_layers").replace("decoder_layers", spelling): x
                for name, x in stored.items()
            },
            path,
        )
    found = load(str(path), num_heads=3, gelu="erf", norm_eps=1e-12)
    assert {**found.settings, "mask_ratio": 0.75} == expected.settings
    x, noise = peers.images(), np.random.default_rng(4).random((2, 16)).astype(np.float32)
    close(outputs_of(found, x, noise=noise).extra["patches"], peers.answer_mae(model, x, noise)[1])


def test_an_encoder_of_an_mae_alone_is_a_plain_vit(tmp_path):
    model = peers.hugging_face_mae(kind="ViTMAEModel", mask_ratio=0.5)
    peers.save_hugging_face(model, tmp_path / "hf")
    loaded = load(str(tmp_path / "hf"))
    assert loaded.settings["name"] == "vit"
    x = peers.images()
    tokens = np.asarray(outputs_of(loaded, x).tokens)
    model.config.mask_ratio = 0.0
    with torch.no_grad():
        expected = model(peers.nchw(x), noise=torch.arange(16.0).repeat(2, 1)).last_hidden_state.numpy()
    close(tokens, expected)
