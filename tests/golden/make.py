"""Makes the golden checkpoints: `python tests/golden/make.py`, in an environment with requirements-peers.txt.

Each folder holds a small model as its own library saved it, and `answer.npz` with random images (float32 NHWC in [-1, 1])
and what that library answers on them. tests/convert/test_golden.py reads them on machines without torch.
"""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "peers"))

import torch_models as peers  # noqa: E402 - found by the line above

HUGGING_FACE = {
    "hf_classifier": ("ViTForImageClassification", {}),
    "hf_encoder": ("ViTModel", {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}),
    "hf_masked": ("ViTForMaskedImageModeling", {"encoder_stride": 4, "qkv_bias": False}),
}
TIMM = {
    "timm_token": {},
    "timm_average": {"global_pool": "avg", "class_token": False, "init_values": 1e-2, "qk_norm": True},
    "timm_no_embed_class": {"global_pool": "avg", "no_embed_class": True, "fc_norm": False, "reg_tokens": 2},
}


def make_masked():
    """A masked image model of gray images and an MAE of wide ones: what is hidden, the prediction, the loss."""
    rng = np.random.default_rng(7)
    x, hidden = peers.images(channels=1), rng.permuted(np.arange(2 * 4).reshape(2, 4) % 4 < 2, axis=1)
    model = peers.hugging_face("ViTForMaskedImageModeling", num_channels=1, patch_size=8, encoder_stride=8)
    peers.save_hugging_face(model, HERE / "hf_masked_gray")
    loss, answer = peers.answer_masked(model, x, hidden)
    np.savez_compressed(HERE / "hf_masked_gray/answer.npz", images=x, answer=answer, hidden=hidden, loss=loss)
    x, noise = peers.images((8, 32)), rng.random((2, 16)).astype(np.float32)
    model = peers.hugging_face_mae(image_size=(8, 32), norm_pix_loss=True)
    peers.save_hugging_face(model, HERE / "hf_mae")
    loss, answer, _ = peers.answer_mae(model, x, noise)
    np.savez_compressed(HERE / "hf_mae/answer.npz", images=x, answer=answer, noise=noise, loss=loss)


def main():
    make_masked()
    x = peers.images()
    for name, (kind, options) in HUGGING_FACE.items():
        model = peers.hugging_face(kind, **options)
        peers.save_hugging_face(model, HERE / name)
        np.savez_compressed(HERE / name / "answer.npz", images=x, answer=peers.answer_hugging_face(model, x))
    for name, options in TIMM.items():
        model = peers.timm_vit(**options)
        peers.save_timm(model, HERE / name)
        np.savez_compressed(HERE / name / "answer.npz", images=x, answer=peers.answer(model, x))


if __name__ == "__main__":
    main()
