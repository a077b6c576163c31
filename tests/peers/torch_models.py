"""Small models of PyTorch's ViT libraries, freshly seeded, and what they answer: the other side of every comparison.

Used by the live tests beside this file and by tests/golden/make.py, which keeps a few answers for machines without torch.
"""

import importlib.util
import re
from pathlib import Path

import numpy as np
import torch

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}


def declare_vision_operators():
    """torchvision's compiled operators do not load beside a CPU build of torch, and timm only imports it: names suffice."""
    source = Path(importlib.util.find_spec("torchvision").origin).with_name("_meta_registrations.py").read_text()
    names = set(re.findall(r'register_(?:fake|meta)\("(?:torchvision::)?(\w+)"\)', source))
    library = torch.library.Library("torchvision", "DEF")
    for name in names:
        library.define(f"{name}(Tensor x) -> Tensor")
    return library


try:
    import timm
except RuntimeError:
    KEPT = declare_vision_operators()  # or it is undone when it is collected
    import timm


def seeded(model, seed):
    """Random weights of a size that matters everywhere: biases, norms, tokens, zero-initialised heads."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            is_scale = parameter.ndim == 1 and name.endswith(("weight", "gamma"))
            parameter.copy_(noise * (0.3 if parameter.ndim > 1 else 0.2) + is_scale)
    return model.eval()


def images(size=16, channels=3, count=2):
    """float32 (b, h, w, c) in [-1, 1]."""
    h, w = (size, size) if isinstance(size, int) else size
    return np.random.default_rng(5).uniform(-1, 1, (count, h, w, channels)).astype(np.float32)


def nchw(x):
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def hugging_face(kind="ViTForImageClassification", seed=0, **options):
    import transformers

    config = transformers.ViTConfig(**{**SIZES, "image_size": 16, "patch_size": 4, "num_labels": 7, **options})
    return seeded(getattr(transformers, kind)(config), seed)


def hugging_face_mae(seed=0, *, kind="ViTMAEForPreTraining", **options):
    """Fixed tables included: transformers 5.23 leaves them zero in a new model."""
    import transformers

    sizes = {"decoder_hidden_size": 20, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 4}
    settings = {**SIZES, **sizes, "decoder_intermediate_size": 32, "image_size": 16, "patch_size": 4, **options}
    return seeded(getattr(transformers, kind)(transformers.ViTMAEConfig(**settings)), seed)


def answer_masked(model, x, hidden):
    """(loss, reconstruction (b, h, w, c)) of a ViTForMaskedImageModeling."""
    with torch.no_grad():
        out = model(nchw(x), bool_masked_pos=torch.from_numpy(hidden))
    return out.loss.numpy(), out.reconstruction.numpy().transpose(0, 2, 3, 1)


def answer_mae(model, x, noise):
    """(loss, prediction of each patch, mask) of a ViTMAEForPreTraining."""
    pixels, noise = nchw(x), torch.from_numpy(noise)
    with torch.no_grad():
        if x.shape[1] == x.shape[2]:
            out = model(pixels, noise=noise)
            return out.loss.numpy(), out.logits.numpy(), out.mask.numpy()
        # Called as a whole, it takes images that are not square only while it resizes its positions, which these do not need.
        seen = model.vit(pixels, noise=noise)
        logits = model.decoder(seen.last_hidden_state, seen.ids_restore).logits
        target = model.patchify(pixels, interpolate_pos_encoding=True)
        if model.config.norm_pix_loss:
            target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6) ** 0.5
        loss = (((logits - target) ** 2).mean(-1) * seen.mask).sum() / seen.mask.sum()
    return loss.numpy(), logits.numpy(), seen.mask.numpy()


def maes_own_names(model):
    """A ViTMAEForPreTraining's tensors under the names of MAE's own files."""
    pairs = {
        "vit.embeddings.patch_embeddings.projection": "patch_embed.proj",
        "vit.embeddings.cls_token": "cls_token",
        "vit.embeddings.position_embeddings": "pos_embed",
        "vit.layernorm": "norm",
        "decoder.mask_token": "mask_token",
        "decoder.decoder_pos_embed": "decoder_pos_embed",
    }
    blocks = {
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "attention.o_proj": "attn.proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    state = {name: x.detach() for name, x in model.state_dict().items()}
    out = {}
    for name in state:
        if match := re.fullmatch(r"(vit\.|decoder\.decoder_)layers\.(\d+)\.(.+)\.(weight|bias)", name):
            where, i, part, leaf = match.groups()
            block = f"{'decoder_' if 'decoder' in where else ''}blocks.{i}"
            if part == "attention.q_proj":
                qkv = [state[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
                out[f"{block}.attn.qkv.{leaf}"] = torch.cat(qkv)
            elif part in blocks:
                out[f"{block}.{blocks[part]}.{leaf}"] = state[name]
            continue
        plain = next((name.replace(old, new, 1) for old, new in pairs.items() if name.startswith(old)), name)
        out[plain.removeprefix("decoder.")] = state[name]
    return out


def timm_vit(seed=0, **options):
    sizes = {
        "img_size": 16,
        "patch_size": 4,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 3,
        "mlp_ratio": 2,
        "num_classes": 7,
    }
    return seeded(timm.create_model("vit_base_patch16_224", **{**sizes, **options}), seed)


def save_hugging_face(model, folder):
    model.save_pretrained(folder)


def save_timm(model, folder, *, config=True):
    """As timm's hub export writes it: weights, and a config with the arguments that made the model."""
    import json

    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: x.contiguous() for name, x in model.state_dict().items()}, folder / "model.safetensors")
    if config:
        args = {key: list(x) if isinstance(x, tuple) else x for key, x in model._model_args.items()}
        record = {"architecture": "vit_base_patch16_224", "num_classes": model.num_classes, "model_args": args}
        (folder / "config.json").write_text(json.dumps(record | {"pretrained_cfg": {"input_size": [3, 16, 16]}}))


def answer_hugging_face(model, x, *, resize=False):
    """Logits; of a ViTModel its pooled vector, of a masked image model its encoder's tokens."""
    with torch.no_grad():
        kind = type(model).__name__
        if kind == "ViTForImageClassification":
            return model(nchw(x), interpolate_pos_encoding=resize).logits.numpy()
        if kind == "ViTModel":
            return model(nchw(x)).pooler_output.numpy()
        return model.vit(nchw(x)).last_hidden_state.numpy()


def answer(model, x):
    with torch.no_grad():
        return model(nchw(x)).numpy()
