"""Writes checkpoints as npz, Hugging Face, timm, or a folder like a run's; `convert.open` reads each back to the bit.

A format that cannot describe the model refuses it and says why; nothing is omitted silently.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from vit_jax.convert import hugging_face, torch_names, yolos
from vit_jax.convert.architecture import has_class_token
from vit_jax.convert.claims import OWN_SECTION
from vit_jax.convert.load import Loaded
from vit_jax.convert.names import POSITIONS, bit_names
from vit_jax.convert.npz import write_npz
from vit_jax.convert.safetensor import write_safetensors
from vit_jax.models.build import unstack_layers
from vit_jax.train.checkpoint import write_params
from vit_jax.types import UserError

Format = Literal["npz", "hf", "timm", "orbax"]
FORMATS = ("npz", "hf", "timm", "orbax")

# Below this, epsilons of 0, 1e-12 (Hugging Face) and 1e-6 (timm) make no difference that float32 shows.
MAX_TIMM_EPS = 1e-5

# The models that a PyTorch library can represent, as {key of the model section: (allowed values)}.
PLAIN = {
    "name": ("vit",),
    "stem": ("none",),
    "positions": ("learned_1d",),
    "positions_at": ("stem",),
    "axial": (False,),
}
HUGGING_FACE_CAN = PLAIN | {
    "name": ("vit", "masked", "mae"),
    "positions": ("learned_1d", "sincos_mae"),
    "decoder": ("pixels",),
    "final_norm": (True,),
    "pool": ("token",),
    "class_token": ("auto", "yes"),
    "norm_after_pool": (False,),
    "registers": (0,),
    "layer_scale": (0.0, 0),
    "qk_norm": (False,),
}
TIMM_CAN = PLAIN | {"positions": ("learned_1d", "sincos_mae"), "pool": ("token", "gap"), "representation_size": (0,)}


def save_model(loaded: Loaded, path: str, form: Format) -> list[str]:
    """Writes a model.

    Args:
      loaded: from `convert.load.load`.
      path: an npz file, or the folder of the other formats; must not exist.
      form: `npz` under the released names (BiT's for a ResNet; facts without a tensor go into a .json beside it), `hf` and
        `timm` as folders that these libraries load, `orbax` as a folder that `init` and `load_model` read.

    Returns:
      The files written.

    Raises:
      UserError: the format cannot represent this model, or the path exists.
    """
    if form not in FORMATS:
        raise UserError(f"--format={form}; expected one of {', '.join(FORMATS)}")
    if not path:
        raise UserError("--to is empty; expected a file or folder that does not exist")
    try:
        place = epath.Path(path).expanduser()
        if place.exists():
            raise UserError(f"{path} exists; give another --to, or remove it first")
        tensors = {name: np.asarray(x) for name, x in flatten_dict(loaded.params, sep="/").items()}
        write = {"npz": _save_npz, "hf": _save_hugging_face, "timm": _save_timm, "orbax": _save_orbax}[form]
        return write(loaded, place, unstack_layers(tensors))
    except (OSError, ImportError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"{path} cannot be written ({reason}); give another --to, and remove what is there of it"
        ) from error


def _save_orbax(loaded: Loaded, place: epath.Path, tensors: dict[str, np.ndarray]) -> list[str]:
    looped = loaded.settings | ({"scan": False} if "scan" in loaded.settings else {})
    meta = own_section(loaded) | {"config": {"model": _json(looped)}, "grid": list(loaded.grid or (1, 1))}
    return [str(write_params(place, unflatten_dict(tensors, sep="/"), meta))]


def own_section(loaded: Loaded) -> dict[str, Any]:
    """The section that every format carries under vit_jax's key: model section, grid, class names, preprocessing."""
    kept = ("class_names", "preprocessing", "pixel_mean", "pixel_std")
    meta = {key: loaded.source.meta[key] for key in kept if loaded.source.meta.get(key)}
    grid = {"grid": list(loaded.grid)} if loaded.grid else {}
    return {"model": _json(loaded.settings), **grid, **meta}


def _save_npz(loaded: Loaded, place: epath.Path, tensors: dict[str, np.ndarray]) -> list[str]:
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_suffix(".json")
    if beside == place or beside.exists():
        raise UserError(f"{beside} exists, and the npz's settings would go there; give another --to, ending in .npz")
    write_npz(place, bit_names(tensors) if loaded.settings["name"] == "resnet" else tensors)
    return [str(place), _write_json(beside, {OWN_SECTION: own_section(loaded)})]


def _save_hugging_face(loaded: Loaded, place: epath.Path, tensors: dict[str, np.ndarray]) -> list[str]:
    detects = loaded.settings["name"] == "yolos"
    _check_can("hf", loaded, {"positions": ("learned_1d",)} if detects else HUGGING_FACE_CAN)
    settings = loaded.settings
    has_head, has_pooler = "head/kernel" in tensors, "pre_logits/kernel" in tensors
    if has_head and has_pooler:
        raise UserError(
            "transformers has no model with both a representation layer (its pooler) and a head; load it with "
            "num_classes=0 to leave the head, or fine-tune it first, which drops the representation layer"
        )
    foreign = hugging_face.foreign_tensors(loaded, tensors, has_head)
    h, w = loaded.module.pixels(loaded.grid or (14, 14))
    ph, pw = settings["patch_size"]
    channels = int(tensors["embedding/kernel"].shape[2])
    names = loaded.source.meta.get("class_names") or [f"LABEL_{i}" for i in range(settings.get("num_classes", 0))]
    config = {
        "architectures": ["ViTForImageClassification" if has_head else "ViTModel"],
        "model_type": "vit",
        "hidden_size": settings["width"],
        "num_hidden_layers": settings["depth"],
        "num_attention_heads": settings["num_heads"],
        "intermediate_size": settings["mlp_dim"],
        "hidden_act": "gelu" if settings.get("gelu") == "erf" else "gelu_pytorch_tanh",
        "layer_norm_eps": settings.get("norm_eps", 1e-6),
        "image_size": h if h == w else [h, w],
        "patch_size": ph if ph == pw else [ph, pw],
        "num_channels": channels,
        "qkv_bias": True,
        **hugging_face.task_of(loaded),
        OWN_SECTION: own_section(loaded),
    }
    if has_head:
        config |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    mean, std = (loaded.source.meta.get(key, [0.5] * channels) for key in ("pixel_mean", "pixel_std"))
    if detects:
        config |= yolos.config_of(settings, (h, w), list(names))
    processor = yolos.processor_of((h, w), mean, std) if detects else hugging_face.processor_of((h, w), mean, std)
    place.mkdir(parents=True)
    write_safetensors(place / "model.safetensors", foreign)
    return [
        str(place / "model.safetensors"),
        _write_json(place / "config.json", config),
        _write_json(place / "preprocessor_config.json", processor),
    ]


def _save_timm(loaded: Loaded, place: epath.Path, tensors: dict[str, np.ndarray]) -> list[str]:
    _check_can("timm", loaded, TIMM_CAN)
    settings = loaded.settings
    if settings.get("norm_eps", 1e-6) > MAX_TIMM_EPS:
        raise UserError(
            f"--format=timm: timm's LayerNorm epsilon is 1e-6, this model's {settings['norm_eps']}; use npz or hf"
        )
    if POSITIONS in tensors and "Transformer/registers" in tensors:
        # timm gives every prefix token a position; vit_jax gives registers none.
        first = int(has_class_token(settings))
        registers = np.zeros_like(tensors["Transformer/registers"])
        parts = [tensors[POSITIONS][:, :first], registers, tensors[POSITIONS][:, first:]]
        tensors = tensors | {POSITIONS: np.concatenate(parts, axis=1)}
    foreign, left = torch_names.to_foreign(tensors, torch_names.TIMM, settings["depth"])
    torch_names.check_left("timm", left)
    h, w = loaded.module.pixels(loaded.grid or (14, 14))
    names = loaded.source.meta.get("class_names")
    args = {
        "img_size": [h, w],
        "patch_size": list(settings["patch_size"]),
        "in_chans": int(tensors["embedding/kernel"].shape[2]),
        "embed_dim": settings["width"],
        "depth": settings["depth"],
        "num_heads": settings["num_heads"],
        "mlp_ratio": settings["mlp_dim"] / settings["width"],
        "global_pool": "token" if settings["pool"] == "token" else "avg",
        "class_token": has_class_token(settings),
        "fc_norm": bool(settings.get("norm_after_pool")),
        "reg_tokens": int(settings.get("registers", 0)),
        "qk_norm": bool(settings.get("qk_norm")),
        "act_layer": "gelu" if settings.get("gelu") == "erf" else "gelu_tanh",
    }
    if settings.get("layer_scale"):
        args["init_values"] = settings["layer_scale"]
    config = {
        "architecture": "vit_base_patch16_224",  # model_args gives every size
        "num_classes": settings.get("num_classes", 0),
        "global_pool": args["global_pool"],
        "model_args": args,
        "pretrained_cfg": {
            "input_size": [args["in_chans"], h, w],
            "num_classes": settings.get("num_classes", 0),
            "mean": loaded.source.meta.get("pixel_mean", [0.5] * args["in_chans"]),
            "std": loaded.source.meta.get("pixel_std", [0.5] * args["in_chans"]),
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "fixed_input_size": True,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
        OWN_SECTION: own_section(loaded),
    }
    if names:
        config["label_names"] = list(names)
    place.mkdir(parents=True)
    write_safetensors(place / "model.safetensors", foreign)
    return [str(place / "model.safetensors"), _write_json(place / "config.json", config)]


def _check_can(form: str, loaded: Loaded, can: Mapping[str, tuple]) -> None:
    if wrong := _beyond(form, loaded.settings, can):
        raise UserError(f"--format={form} cannot hold this model; use npz or orbax:\n" + "\n".join(wrong))


def refusal(form: str, settings: Mapping[str, Any]) -> str:
    """Why a library's format cannot hold models of these settings, on one line; "" if it can, as far as the settings say."""
    if settings["name"] == "yolos":
        return "timm has no detector of this kind" if form == "timm" else ""
    wrong = _beyond(form, settings, HUGGING_FACE_CAN if form == "hf" else TIMM_CAN)
    if form == "hf" and settings.get("representation_size") and settings.get("num_classes"):
        wrong.append("transformers has no model with both a representation layer and a head")
    return "; ".join(line.strip() for line in wrong)


def _beyond(form: str, settings: Mapping[str, Any], can: Mapping[str, tuple]) -> list[str]:
    return [
        f"  model.{key} is {settings[key]!r}; {form} knows {' or '.join(map(repr, allowed))}"
        for key, allowed in can.items()
        if key in settings and settings[key] not in allowed
    ]


def _json(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(x) if isinstance(x, tuple) else x for key, x in settings.items()}


def _write_json(path: epath.Path, value: Any) -> str:
    path.write_text(json.dumps(value, indent=2) + "\n")
    return str(path)
