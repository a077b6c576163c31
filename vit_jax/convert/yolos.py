"""Detectors of Hugging Face (`YolosForObjectDetection`), read and written. Their encoder has the names of `torch_names`.

One table holds the positions of class token, patches and detection tokens. Here the last are a tensor of their own, so that a
classifier's table and a detector's are one kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax.convert.names import POSITIONS
from vit_jax.convert.torch_names import HUGGING_FACE

QUERIES, MIDDLE = "Transformer/query_positions", "Transformer/mid_positions"
TOKENS = "embeddings.detection_tokens"
HEADS = tuple(
    (f"{theirs}.layers.{i}", f"{ours}/Dense_{i}", "dense")
    for theirs, ours in (("class_labels_classifier", "head"), ("bbox_predictor", "box_head"))
    for i in range(3)
)
RULES = (
    *(rule for rule in HUGGING_FACE if rule[0] not in ("pooler.dense", "classifier")),
    (TOKENS, "detection_tokens", "same"),
    ("encoder.mid_position_embeddings", MIDDLE, "same"),
    *HEADS,
)


def rules_for(hub: Mapping[str, np.ndarray]) -> tuple[tuple[str, str, str], ...]:
    """The rules of `torch_names` for a file of transformers: a detector's, or a classifier's."""
    return RULES if TOKENS in hub else HUGGING_FACE


def with_grid(settings: dict[str, Any], grid: tuple[int, int] | None) -> dict[str, Any]:
    """A model section that says the grid of a detector's positions, if it is known; any other model's stays."""
    return {"position_grid": grid} | settings if settings["name"] == "yolos" and grid else settings


def split_positions(native: dict[str, np.ndarray], origin: dict[str, str]) -> None:
    """Gives the detection tokens' positions a tensor of their own, in place."""
    tokens, table = native.get("detection_tokens"), native.get(POSITIONS)
    if tokens is None or table is None or not tokens.ndim == table.ndim == 3 or table.shape[1] <= tokens.shape[1]:
        return  # the fit refuses them
    native[POSITIONS], native[QUERIES] = np.split(table, [table.shape[1] - tokens.shape[1]], axis=1)
    if POSITIONS in origin:
        origin[QUERIES] = origin[POSITIONS]


def join_positions(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `split_positions`."""
    joined = {name: x for name, x in tensors.items() if name != QUERIES}
    return joined | {POSITIONS: np.concatenate([tensors[POSITIONS], tensors[QUERIES]], axis=1)}


def config_of(settings: Mapping[str, Any], resolution: tuple[int, int], names: list[str]) -> dict[str, Any]:
    """The part of transformers' config.json that a detector has besides a classifier."""
    return {
        "architectures": ["YolosForObjectDetection"],
        "model_type": "yolos",
        "image_size": list(resolution),
        "patch_size": settings["patch_size"][0],
        "num_detection_tokens": settings["queries"],
        "use_mid_position_embeddings": bool(settings.get("mid_positions")),
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
    }


def processor_of(resolution: tuple[int, int], mean: list[float], std: list[float]) -> dict[str, Any]:
    """transformers' preprocessor_config.json: the shorter side to that of the positions, the longer to at most theirs."""
    return {
        "image_processor_type": "YolosImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": min(resolution), "longest_edge": max(resolution)},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
        "do_pad": True,
        "format": "coco_detection",
    }
