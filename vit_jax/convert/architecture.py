"""Infers a checkpoint's model from the names and shapes of its tensors.

Shapes give the sizes, and the presence of tensors gives the options. The rest (the activation, a grid that is not square) comes
from the checkpoint's own config, or from the caller.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax.convert.names import POSITIONS
from vit_jax.models.inputs import count_patches
from vit_jax.types import UserError, itemize

# Heads for the published widths, used for files without a tensor whose shape shows the heads.
HEADS_OF_WIDTH = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16}

# Number of axes of the tensors whose sizes are read here, by the end of their names.
RANKS = (
    (r"(embedding|stem|conv_root)/kernel", 4),
    (r"(head|pre_logits)/kernel|MixerBlock_\d+/\w+_mixing/Dense_0/kernel", 2),
    (r"Transformer/registers|(.*/)?pos_embedding(_x|_y)?|.*/rel_embedding|(decoder/)?mask_token", 3),
    (r"decoder/((embed|pred)/)?kernel|.*/rel_bias", 2),
)


def infer_settings(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Infers the model section of a checkpoint: `name` and every key that its tensors determine.

    Args:
      tensors: {vit_jax name: array}, layers apart.

    Raises:
      UserError: the tensors are not a vit_jax model; the message says which tensors such a model has.
    """
    _check_ranks(tensors)
    if "stem/kernel" in tensors:
        return _mixer(tensors)
    if {"gn_final/scale", "conv_root/kernel"} <= set(tensors) and "Transformer/encoder_norm/scale" not in tensors:
        return _resnet(tensors)
    if "embedding/kernel" in tensors and _count(tensors, r"Transformer/encoderblock_(\d+)/"):
        return _vit(tensors)
    some = ", ".join(sorted(tensors)[:4]) or "none"
    raise UserError(
        f"these tensors are no model known here: expected embedding/kernel of 4 axes and Transformer/encoderblock_0/... "
        f"(ViT), stem/kernel (Mixer) or conv_root/kernel with gn_final/scale (ResNet); found {len(tensors)} tensors: {some}, ..."
    )


def infer_grid(tensors: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> tuple[int, int] | None:
    """(gh, gw) that a model was trained at, from the X and Y tables or a square number of patches; None if neither exists."""
    for name, x in tensors.items():
        if name.endswith("pos_embedding_y") and name[:-1] + "x" in tensors:
            return x.shape[1], tensors[name[:-1] + "x"].shape[1]
    entries = count_positions(tensors, settings)
    side = math.isqrt(max(entries, 0))
    return (side, side) if side and side * side == entries else None


def count_positions(tensors: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> int:
    """Number of patches that the tensors have positions for, counted by `models.inputs.count_patches`."""
    return count_patches(tensors, has_class_token(settings))


def has_class_token(settings: Mapping[str, Any]) -> bool:
    """Whether the model of a model section has a class token; see `VisionTransformer.class_token`."""
    choice = settings.get("class_token", "auto")
    return settings.get("pool", "token") in ("token", "unpooled") if choice == "auto" else choice == "yes"


def _vit(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    ph, pw, _, width = tensors["embedding/kernel"].shape
    block = "Transformer/encoderblock_0"
    axial = f"{block}/row/LayerNorm_0/scale" in tensors
    block = f"{block}/row" if axial else block
    query = f"{block}/MultiHeadDotProductAttention_1/query/kernel"
    mlp = f"{block}/MlpBlock_3/Dense_0/kernel"
    if _rank(tensors, query) != 3 or _rank(tensors, mlp) != 2:
        raise UserError(
            f"expected {query} of 3 axes and {mlp} of 2; found {_shape(tensors, query)}, {_shape(tensors, mlp)}"
        )
    settings: dict[str, Any] = {
        "name": "vit",
        "patch_size": (ph, pw),
        "width": width,
        "depth": _count(tensors, r"Transformer/encoderblock_(\d+)/"),
        "mlp_dim": tensors[mlp].shape[1],
        "num_heads": tensors[query].shape[1],
        "axial": axial,
        "class_token": "yes" if "cls" in tensors else "no",
        "norm_after_pool": "fc_norm/scale" in tensors,
        "qk_norm": f"{block}/MultiHeadDotProductAttention_1/query_norm/scale" in tensors,
    }
    if "MAPHead_0/probe" in tensors:
        settings["pool"] = "map"
    else:
        settings["pool"] = "token" if "cls" in tensors and "fc_norm/scale" not in tensors else "gap"
    if "Transformer/registers" in tensors:
        settings["registers"] = tensors["Transformer/registers"].shape[1]
    if f"{block}/LayerScale_0/scale" in tensors:
        settings["layer_scale"] = 1e-5  # a common initial value; the tensors hold the trained values
    if "conv_root/kernel" in tensors:
        settings |= {
            "stem": "resnet",
            "stem_depths": _stages(tensors),
            "stem_width": tensors["conv_root/kernel"].shape[-1],
        }
    return settings | _positions(tensors) | _head(tensors, width) | _decoder(tensors)


def _decoder(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Name and decoder of a masked model; empty for a model without a decoder."""
    query = "decoder/Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel"
    mlp = "decoder/Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel"
    if "decoder/embed/kernel" in tensors and _rank(tensors, query) == 3 and _rank(tensors, mlp) == 2:
        return {
            "name": "mae",
            "positions": "sincos_mae" if POSITIONS in tensors else "none",
            "decoder_width": int(tensors["decoder/embed/kernel"].shape[1]),
            "decoder_depth": _count(tensors, r"decoder/Transformer/encoderblock_(\d+)/"),
            "decoder_heads": int(tensors[query].shape[1]),
            "decoder_mlp_dim": int(tensors[mlp].shape[1]),
        }
    if "mask_token" not in tensors or "decoder/kernel" not in tensors:
        return {}
    colours = {512: "mean_colour", 16 * 512: "patch_4x4"}
    ph, pw, channels, _ = tensors["embedding/kernel"].shape
    size = int(tensors["decoder/kernel"].shape[1])
    decoder = "pixels" if size == ph * pw * channels else colours.get(size, "pixels")
    return {"name": "masked", "decoder": decoder, "final_norm": "Transformer/encoder_norm/scale" in tensors}


def _positions(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Kind and place of the positions. A table per layer differs from a single one by its place in the tree; a shared table
    looks like the stem's, so `stem` is assumed."""
    own = "Transformer/encoderblock_0/posembed_input"
    if "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/relative_positions/rel_embedding" in tensors:
        return {"positions": "relative", "positions_at": "every_layer"}
    for parent, at in (("Transformer", "shared"), ("Transformer/encoderblock_0", "every_layer")):
        if f"{parent}/relative_bias/rel_bias" in tensors:
            return {"positions": "relative_bias", "positions_at": at}
    for kind, leaf in (("learned_1d", "pos_embedding"), ("learned_2d", "pos_embedding_x")):
        if f"{own}/{leaf}" in tensors:
            return {"positions": kind, "positions_at": "every_layer"}
        if POSITIONS.removesuffix("pos_embedding") + leaf in tensors:
            return {"positions": kind}
    return {"positions": "none"}


def _head(tensors: Mapping[str, np.ndarray], width: int) -> dict[str, Any]:
    layer, head = tensors.get("pre_logits/kernel"), tensors.get("head/kernel")
    return {
        "representation_size": 0 if layer is None else int(layer.shape[-1]),
        "num_classes": 0 if head is None else int(head.shape[-1]),
    }


def _mixer(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    ph, pw, _, width = tensors["stem/kernel"].shape
    head = tensors.get("head/kernel")
    needed = [f"MixerBlock_0/{part}_mixing/Dense_0/kernel" for part in ("token", "channel")]
    if missing := [name for name in needed if _rank(tensors, name) != 2]:
        raise UserError(f"a Mixer has {missing[0]} of 2 axes; found {_shape(tensors, missing[0])}")
    return {
        "name": "mixer",
        "patch_size": (ph, pw),
        "width": width,
        "depth": _count(tensors, r"MixerBlock_(\d+)/"),
        "tokens_mlp_dim": tensors[needed[0]].shape[1],
        "channels_mlp_dim": tensors[needed[1]].shape[1],
        "num_classes": 0 if head is None else int(head.shape[-1]),
    }


def _resnet(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    head = tensors.get("head/kernel")
    return {
        "name": "resnet",
        "depths": _stages(tensors),
        "width_factor": tensors["conv_root/kernel"].shape[-1] // 64,
        "num_classes": 0 if head is None else int(head.shape[-1]),
    }


def _stages(tensors: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    """Units per stage, counted by `_count`."""
    units: dict[str, set[str]] = {}
    for match in filter(None, (re.match(r"block(\d+)/unit(\d+)/", name) for name in tensors)):
        units.setdefault(match[1], set()).add(match[2])
    return tuple(len(units.get(str(stage), ())) for stage in range(1, len(units) + 1))


def _count(tensors: Mapping[str, np.ndarray], pattern: str) -> int:
    """Counts the numbers in the names; the report of the fit reveals a gap or an absurd number."""
    return len({match[1] for match in (re.match(pattern, name) for name in tensors) if match})


def _check_ranks(tensors: Mapping[str, np.ndarray]) -> None:
    wrong = [
        f"{name} is {_shape(tensors, name) or 'a scalar'}; expected {rank} axes"
        for pattern, rank in RANKS
        for name in tensors
        if re.fullmatch(pattern, name) and _rank(tensors, name) != rank
    ]
    if wrong:
        raise UserError(f"tensors of the wrong rank (nothing was loaded):\n{itemize(wrong)}")


def _rank(tensors: Mapping[str, np.ndarray], name: str) -> int:
    return np.ndim(tensors[name]) if name in tensors else -1


def _shape(tensors: Mapping[str, np.ndarray], name: str) -> str:
    return "x".join(map(str, tensors[name].shape)) if name in tensors else "none"
