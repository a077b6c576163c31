"""Models in the words of Hugging Face transformers: names of tensors, and config of the task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vit_jax.convert import torch_names, yolos
from vit_jax.types import UserError

if TYPE_CHECKING:
    from vit_jax.convert.load import Loaded


def foreign_tensors(loaded: Loaded, tensors: dict[str, np.ndarray], has_head: bool) -> dict[str, np.ndarray]:
    """A model's tensors under transformers' names, those of an encoder inside another model after `vit.`."""
    settings = loaded.settings
    is_mae = settings["name"] == "mae"
    decoder = {name: x for name, x in tensors.items() if is_mae and name.startswith("decoder/")}
    encoder = {name: x for name, x in tensors.items() if name not in decoder}
    rules = yolos.RULES if settings["name"] == "yolos" else torch_names.HUGGING_FACE
    encoder = yolos.join_positions(encoder) if settings["name"] == "yolos" else encoder
    foreign, left = torch_names.to_foreign(encoder, rules, settings["depth"])
    if has_head or settings["name"] != "vit":
        own = ("classifier", "decoder.", "class_labels_classifier", "bbox_predictor")
        foreign = {name if name.startswith(own) else f"vit.{name}": x for name, x in foreign.items()}
    if decoder:
        plain, also = torch_names.to_foreign(
            decoder, torch_names.HUGGING_FACE_DECODER, loaded.settings["decoder_depth"]
        )
        foreign |= {torch_names.hugging_face_decoder_name(name): x for name, x in plain.items()}
        left += also
    torch_names.check_left("hf", left)
    return foreign


def task_of(loaded: Loaded) -> dict[str, Any]:
    """The part of transformers' config that says what a masked model predicts; empty for other models.

    Raises:
      UserError: transformers' masked model cannot be of this shape.
    """
    settings = loaded.settings
    (ph, pw), (gh, gw) = settings["patch_size"], loaded.grid or (14, 14)
    if settings["name"] == "masked":
        if ph != pw or gh != gw:
            raise UserError(
                f"--format=hf: transformers' masked image model predicts square patches of square images, and these are of "
                f"{ph}x{pw} and {gh}x{gw} patches; use npz or orbax, or load it for a square resolution"
            )
        return {"architectures": ["ViTForMaskedImageModeling"], "encoder_stride": ph}
    if settings["name"] != "mae":
        return {}
    objective = loaded.source.meta.get("config", {}).get("objective", {})
    return {
        "architectures": ["ViTMAEForPreTraining"],
        "model_type": "vit_mae",
        "mask_ratio": settings.get("mask_ratio", 0.75),
        "norm_pix_loss": bool(objective.get("norm_pix", False)),
        "decoder_hidden_size": settings["decoder_width"],
        "decoder_num_hidden_layers": settings["decoder_depth"],
        "decoder_num_attention_heads": settings["decoder_heads"],
        "decoder_intermediate_size": settings["decoder_mlp_dim"],
    }


def processor_of(resolution: tuple[int, int], mean: list[float], std: list[float]) -> dict[str, Any]:
    """transformers' preprocessor_config.json."""
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": resolution[0], "width": resolution[1]},
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
    }
