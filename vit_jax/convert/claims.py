"""Checks the claims that a JSON file beside a checkpoint makes about its model before they are used.

Tensors determine most of a model. A Hugging Face or timm config.json, or the section that `convert.save` writes, gives the
activation, epsilons, heads and grid. A value that makes no sense is an error and never replaced by a guess.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Mapping
from typing import Any

from vit_jax.models import build
from vit_jax.models.base import ImageModel
from vit_jax.types import UserError, itemize, shown

# The key of vit_jax's own section inside another library's config, or in the JSON beside an npz.
OWN_SECTION = "vit_jax"

HUGGING_FACE_GELU = {"gelu": "erf", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu_fast": "tanh"}
TIMM_GELU = {"gelu": "erf", "gelu_tanh": "tanh", "gelu_pytorch_tanh": "tanh"}
TIMM_POOL = {"token": "token", "avg": "gap", "": "unpooled"}

# Published models have less than a tenth of these. Refusing a model with absurd sizes later would take minutes, or all memory.
MAX_LAYERS = 1000  # blocks; in a ResNet or a hybrid's stem, units of all stages together
MAX_STAGES = 16
MAX_PATCHES = 2**16  # per image
MAX_SIZE = 2**24  # any other size

# Sizes that the tensors' shapes always determine, so no claim may contradict them.
SIZES = (
    *("name", "patch_size", "width", "depth", "mlp_dim", "num_heads", "stem", "stem_depths", "stem_width", "depths"),
    *("width_factor", "tokens_mlp_dim", "channels_mlp_dim", "registers", "representation_size", "num_classes"),
    *("decoder_width", "decoder_depth", "decoder_heads", "decoder_mlp_dim"),
)


def hugging_face_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Reads `gelu`, `norm_eps` and, if given, `num_heads` and an MAE's `mask_ratio` from a transformers config.

    Raises:
      UserError: the config belongs to another kind of model, or a value makes no sense.
    """
    kind, act, pooler = (
        config.get(key, default)
        for key, default in (("model_type", "vit"), ("hidden_act", "gelu"), ("pooler_act", "tanh"))
    )
    if kind not in ("vit", "vit_mae"):
        raise UserError(f"config.json says model_type {shown(kind)}; expected 'vit' or 'vit_mae'")
    if pooler != "tanh":
        raise UserError(
            f"config.json says pooler_act {shown(pooler)}; expected 'tanh', as the representation layer has it"
        )
    eps = config.get("layer_norm_eps", 1e-12)
    if not fits(eps, float) or not 0 <= eps < 1:
        raise UserError(f"config.json says layer_norm_eps {shown(eps)}; expected a number of at least 0 and below 1")
    settings = {"gelu": _known(act, HUGGING_FACE_GELU, "hidden_act"), "norm_eps": float(eps)}
    if kind == "vit_mae":
        settings["mask_ratio"] = ratio = config.get("mask_ratio", 0.75)
        if not fits(ratio, float) or not 0 < ratio < 1:
            raise UserError(f"config.json says mask_ratio {shown(ratio)}; expected a number above 0 and below 1")
    return settings | _heads(config, "num_attention_heads")


def pixel_statistics(config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, list[float]]:
    """Reads `pixel_mean` and `pixel_std`, the statistics per channel of pixels in [0, 1] that normalise a source's images.

    Args:
      config: a folder's config.json; timm gives the statistics in `pretrained_cfg`.
      processor: transformers' preprocessor_config.json.

    Returns:
      {} if there are none, or if they are 0.5 and 0.5, which is the [-1, 1] of all released weights.
    """
    timm = config.get("pretrained_cfg")
    timm = timm if isinstance(timm, Mapping) else {}
    off = processor.get("do_normalize") is False
    mean = [0.0] if off else processor.get("image_mean", timm.get("mean"))
    std = [1.0] if off else processor.get("image_std", timm.get("std"))
    if mean is None and std is None:
        return {}
    for key, value in (("mean", mean), ("std", std)):
        is_list = isinstance(value, list | tuple) and value and all(fits(x, float) for x in value)
        if not is_list or (key == "std" and min(value) <= 0):
            raise UserError(f"the images' {key} is {shown(value)}; expected a list of numbers, one per channel")
    if all(x == 0.5 for x in (*mean, *std)):
        return {}
    return {"pixel_mean": [float(x) for x in mean], "pixel_std": [float(x) for x in std]}


def timm_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Reads `gelu`, `norm_eps` and, if given, `num_heads` and `pool` from a timm config; errors as above."""
    args = _model_args(config)
    settings = {"gelu": _known(args.get("act_layer", "gelu"), TIMM_GELU, "act_layer"), "norm_eps": 1e-6}
    pool = args.get("global_pool", config.get("global_pool"))
    if pool is not None:
        settings["pool"] = _known(pool, TIMM_POOL, "global_pool")
    return settings | _heads(args, "num_heads")


def grid_of_config(config: Mapping[str, Any], patch_size: tuple[int, int]) -> tuple[int, int] | None:
    """(gh, gw) of the image size that another library's config gives; None if it gives none."""
    size = config.get("image_size") or _model_args(config).get("img_size")
    if size is None:
        return None
    pair = (size, size) if fits(size, int) else size
    if not is_pair(pair) or pair[0] < patch_size[0] or pair[1] < patch_size[1]:
        raise UserError(
            f"config.json says images of {shown(size)}; expected pixels, at least the patch of {patch_size[0]}x{patch_size[1]}"
        )
    return pair[0] // patch_size[0], pair[1] // patch_size[1]


def class_names(config: Mapping[str, Any]) -> list[str] | None:
    """Names of the head's outputs, in order, if another library's config has them."""
    labels = config.get("id2label")
    if not labels:
        names = config.get("label_names")
        if names is not None and not _is_names(names):
            raise UserError("config.json: label_names is no list of names")
        return names
    if not isinstance(labels, dict) or set(labels) != {str(i) for i in range(len(labels))}:
        raise UserError("config.json: id2label is no object with keys 0, 1, ... and the names of the classes")
    return [str(labels[str(i)]) for i in range(len(labels))]


def own_section(holder: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the section that `convert.save` wrote, with lists made tuples; empty if there is none.

    Raises:
      UserError: the section does not have the form that `convert.save` writes.
    """
    own = holder.get(OWN_SECTION, {})
    model = own.get("model", {}) if isinstance(own, dict) else None
    if not isinstance(model, dict):
        raise UserError(
            f"its section {OWN_SECTION!r} is not as this program writes it: expected an object with a model"
        )
    if own.get("grid") is not None and not is_pair(own["grid"]):
        raise UserError(f"its section {OWN_SECTION!r} says grid {shown(own['grid'])}; expected [gh, gw]")
    if own.get("class_names") is not None and not _is_names(own["class_names"]):
        raise UserError(f"its section {OWN_SECTION!r}: class_names is no list of names")
    model = {key: tuple(x) if isinstance(x, list) else x for key, x in model.items()}
    if model:
        check_settings(model)
        model = as_fields(model)
    return dict(own) | {"model": model}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Checks a model section against the fields of its class.

    Raises:
      UserError: unknown model, unknown keys, values of the wrong type; one message lists all.
    """
    schema = fields_of(settings.get("name"))
    errors = [] if "num_classes" in settings else ["model.num_classes is missing"]
    for key, value in settings.items():
        if key not in schema and key != "name":
            errors.append(f"model.{key} is no option of {settings['name']}; it has {', '.join(sorted(schema))}")
        elif key in schema and not fits(value, schema[key]):
            errors.append(f"model.{key} is {shown(value)}; expected {_describe(schema[key])}")
    eps = settings.get("norm_eps", 0)
    if not errors and not 0 <= eps < 1:
        errors.append(f"model.norm_eps is {shown(eps)}; expected at least 0 and below 1")
    if errors:
        raise UserError(f"these settings are no model's:\n{itemize(errors)}")
    check_sizes(settings, None)


def as_fields(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Converts a checked model section to the types of its class's fields: JSON and people write 0 for 0.0."""
    schema = fields_of(settings["name"])
    return {key: float(x) if schema.get(key) is float else x for key, x in settings.items()}


def check_sizes(settings: Mapping[str, Any], grid: Any) -> None:
    """Limits every size that a model is built from, before anything is built.

    Raises:
      UserError: more layers, stages or patches than any model has; a grid that is not a pair.
    """
    wrong = []
    for key, value in settings.items():
        counts = [abs(n) for n in (value if isinstance(value, tuple | list) else (value,)) if type(n) is int]
        limit, size = (MAX_LAYERS, sum(counts)) if "depth" in key else (MAX_SIZE, max(counts, default=0))
        if size > limit:
            text = f"{value:,}" if type(value) is int else shown(value)
            wrong.append(f"model.{key} is {text}; expected at most {limit:,}")
        elif len(counts) > MAX_STAGES:
            wrong.append(f"model.{key} has {len(counts):,} numbers; expected at most {MAX_STAGES}")
    if grid is not None and not is_pair(grid):
        wrong.append(f"grid is {shown(grid)}; expected two numbers of patches")
    elif grid is not None and grid[0] * grid[1] > MAX_PATCHES:
        wrong.append(f"the grid is of {shown(grid[0])} x {shown(grid[1])} patches; expected at most {MAX_PATCHES:,}")
    if wrong:
        raise UserError(f"these sizes are no model's:\n{itemize(wrong)}")


def check_against(inferred: Mapping[str, Any], claimed: Mapping[str, Any]) -> None:
    """Refuses a section of vit_jax's own that contradicts the tensors beside it.

    Args:
      inferred: the model section inferred from the tensors.
      claimed: the section that `convert.save` wrote.

    Raises:
      UserError: lists all sizes in which they differ.
    """
    wrong = [
        f"{key} is {shown(claimed[key])}, and of the tensors {shown(inferred[key])}"
        for key in SIZES
        if key in claimed and key in inferred and claimed[key] != inferred[key]
    ]
    if wrong:
        raise UserError(f"its section {OWN_SECTION!r} is of another model than its tensors:\n{itemize(wrong)}")


def undecided(settings: Mapping[str, Any], claimed: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of a model section that neither tensors nor `claimed` determine: a model without position embeddings may have fixed
    ones, which leave no tensor."""
    return ("positions",) if settings.get("positions") == "none" and "positions" not in claimed else ()


def model_of(name: Any) -> type[ImageModel]:
    """A model's class; UserError if there is no such model."""
    if not isinstance(name, str) or name not in build.MODELS:
        raise UserError(
            f"there is no model {shown(name)}; expected one of {', '.join(build.MODELS)}, or import the module that adds it first"
        )
    return build.MODELS[name]


def fields_of(name: Any) -> dict[str, Any]:
    """{option: type} for a model's class; UserError if there is no such model."""
    hints = typing.get_type_hints(model_of(name))
    return {key: hint for key, hint in hints.items() if key not in ("parent", "name")}


def fits(value: Any, hint: Any) -> bool:
    """Whether a value has a type: int, float (finite; an int is accepted), bool, a Literal, or a tuple of ints."""
    args = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return isinstance(value, str) and value in args
    if typing.get_origin(hint) is tuple:
        same_length = args[-1] is Ellipsis or (isinstance(value, tuple | list) and len(value) == len(args))
        return isinstance(value, tuple | list) and same_length and all(fits(x, int) for x in value)
    if hint is float:
        # An int of 400 digits cannot become a float: compare it, do not convert it.
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return type(value) is hint


def is_pair(value: Any) -> bool:
    """Whether a value is two positive ints."""
    return fits(value, tuple[int, int]) and min(value) > 0


def _describe(hint: Any) -> str:
    choices = typing.get_args(hint)
    return " or ".join(choices) if typing.get_origin(hint) is typing.Literal else getattr(hint, "__name__", str(hint))


def _model_args(config: Mapping[str, Any]) -> dict[str, Any]:
    args = config.get("model_args") or {}
    if not isinstance(args, dict):
        raise UserError(f"config.json: model_args is {type(args).__name__}; expected an object")
    return args


def _known(value: Any, table: Mapping[str, str], key: str) -> str:
    if not isinstance(value, str) or value not in table:
        expected = ", ".join(name or "''" for name in table)
        raise UserError(f"{key} {shown(value)} is not known here; expected one of {expected}")
    return table[value]


def _heads(config: Mapping[str, Any], key: str) -> dict[str, int]:
    if key not in config:
        return {}
    if not fits(config[key], int) or config[key] < 1:
        raise UserError(f"config.json says {key} {shown(config[key])}; expected 1 or more")
    return {"num_heads": config[key]}


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
