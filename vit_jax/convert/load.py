"""Loads a checkpoint from anywhere, as a module and its parameters; for notebooks and tools."""

from __future__ import annotations

import ast
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import flax.linen as nn
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vit_jax.convert import architecture, claims
from vit_jax.convert.adapt import Fate, fit_params, fold_pixels
from vit_jax.convert.checkpoint import Checkpoint, Weights
from vit_jax.convert.classes import match_classes, reorder_head
from vit_jax.convert.fetch import fingerprint_of
from vit_jax.convert.open import open_checkpoint, without_positions
from vit_jax.models import build
from vit_jax.models.base import ImageModel
from vit_jax.models.positions import Method
from vit_jax.remote import is_url
from vit_jax.train.folders import run_folder
from vit_jax.types import UserError, nearest


def load_model(path: str | os.PathLike[str], **overrides: Any) -> tuple[nn.Module, dict[str, Any]]:
    """Loads a checkpoint of any format and infers its architecture from the file itself.

        module, params = load_model("ViT-B_16.npz")
        images = read_images(["photo.jpg"], (224, 224))
        outputs = module.apply({"params": params}, images)
        probabilities = jax.nn.softmax(outputs.logits)

    Images are float (b, h, w, channels), RGB, in the source's own value range: [-1, 1], as `vit_jax.read_images` prepares them,
    for all released weights and for sources that give no range. `stored_pixels=True` makes it [-1, 1] in any case (the first
    layer then absorbs other statistics of a Hugging Face or timm folder). Squash images to the size that the positions were
    trained at; `resolution` loads the model for another size.

    The outputs (`vit_jax.types.Outputs`) are `logits` (b, classes); `pre_logits` (b, r), the features that the head reads;
    `pooled` (b, d); and `tokens` (b, n, d), class token first. Calling `module.apply` with `capture=("layers", "attention")` adds
    for each block `layers` (b, n, d) and `attention` (b, heads, n, n). A masked model has no logits; with `hidden=mask`, bool
    (b, n), its `extra["pixels"]` (b, h, w, channels) are predicted, and with `noise=`, float (b, n), an MAE's `extra["patches"]`.

    Args:
      path: npz or safetensors file, Hugging Face or timm folder, workdir of vit_jax, or a released model's name
        (`augreg:B/16`).
      **overrides: facts that the file does not record, or changes: any argument of the model's class (`pool="unpooled"`,
        `dtype="bfloat16"`, `num_classes=0` to drop the head); `grid=(gh, gw)` that the positions were trained at, if it is
        not square; `resolution=(h, w)` in pixels, to resize the positions to it, by `resize` (a method of
        `models.positions.interpolation_matrix`); `channels` of the images; `weights="average"` of a vit_jax run.

    Returns:
      (linen module, parameter tree of float32 numpy arrays).

    Raises:
      UserError: the file cannot be read, does not fit, or holds NaN, or an override is unknown.
    """
    loaded = load(path, **overrides)
    return loaded.module, loaded.params


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A loaded checkpoint, as `load` returns it.

    Args:
      module: linen module.
      params: parameter tree, numpy float32.
      source: the opened checkpoint.
      settings: the model section: `name` and the module's fields.
      grid: (gh, gw) of the positions as loaded.
      report: the fate of every tensor.
    """

    module: ImageModel
    params: dict[str, Any]
    source: Checkpoint
    settings: dict[str, Any]
    grid: tuple[int, int] | None
    report: list[Fate]


def load(
    path: str | os.PathLike[str],
    *,
    grid: tuple[int, int] | None = None,
    resolution: tuple[int, int] | None = None,
    resize: Method = "bilinear_corners",
    channels: int | None = None,
    weights: Any = "raw",
    stored_pixels: bool = False,
    **fields: Any,
) -> Loaded:
    """Loads a checkpoint as `load_model` does, with the report and everything known about the checkpoint.

    With `stored_pixels` the model suits `models.build.make_forward`, which maps stored pixels to [-1, 1]: if the source uses
    another range, its first layer absorbs the difference.
    """
    _check_options(grid, resolution, resize, channels, weights, fields.get("num_heads"))
    source = open_checkpoint(str(path), num_heads=fields.get("num_heads", 0), weights=weights, grid=grid)
    if "positions" in source.undecided and "positions" not in fields:
        raise UserError(f"{without_positions(source.path)}; load it with positions=none or positions=sincos_2d")
    settings = _override(source, fields)
    source = dataclasses.replace(source, settings=settings)
    source, folded = fold_pixels(source) if stored_pixels else (source, [])
    if fields.get("num_classes") == 0:
        source.aside.update(dict.fromkeys((n for n in source.tensors if n.startswith("head/")), "num_classes=0"))
        source.tensors = {name: x for name, x in source.tensors.items() if not name.startswith("head/")}
    shown = source.grid or _stand_in(source, settings)
    module = build.MODELS[settings["name"]](**{key: x for key, x in settings.items() if key != "name"})
    first = source.tensors.get(f"{module.first_layer}/kernel")
    channels = channels or (3 if first is None else first.shape[2])
    resolution = resolution or _trained_at(source, module, shown) or module.pixels(shown or (14, 14))
    looped = module.clone(scan=False) if module.scan else module
    shapes = flatten_dict(build.abstract_params(looped, resolution, channels), sep="/")
    fresh = {name: _Start(x.shape, x.dtype) for name, x in shapes.items()}
    new_grid = module.grid(resolution)
    params, report = fit_params(source, fresh, head="keep", new_grid=new_grid, resize=resize)  # type: ignore[arg-type]
    if module.scan:
        params = build.stack_layers(params)
    return Loaded(module, unflatten_dict(params, sep="/"), source, settings, new_grid, folded + report)


def _stand_in(source: Checkpoint, settings: dict[str, Any]) -> tuple[int, int] | None:
    """For positions of an unknown grid, a grid with as many patches; the fit then reports the unknown grid with all other errors.

    Raises:
      UserError: nothing else would stop loading at a wrong grid.
    """
    if settings["name"] == "resnet" or settings.get("positions") == "none":
        return None
    count = architecture.count_positions(source.tensors, settings)
    if settings["name"] == "mixer" or count < 1:
        has = (
            f"has {count} patches, which is no square grid" if count else "does not say the grid of its fixed positions"
        )
        raise UserError(f"{source.path} {has}; give grid=(gh, gw)")
    return 1, count


class _Start:
    """A stand-in for a parameter: shape and dtype, without values."""

    def __init__(self, shape: tuple[int, ...], dtype: Any):
        self.shape, self.dtype, self.ndim = shape, dtype, len(shape)


def _check_options(grid: Any, resolution: Any, resize: Any, channels: Any, weights: Any, num_heads: Any) -> None:
    """Raises UserError that lists all invalid overrides, except those of the model's own fields."""
    pairs = {"grid": grid, "resolution": resolution}
    wrong = [
        f"{key}={x!r}; expected (h, w), 1 or more each"
        for key, x in pairs.items()
        if x is not None and not claims.is_pair(x)
    ]
    counts = {"channels": channels, "num_heads": num_heads}
    wrong += [
        f"{key}={x!r}; expected 1 or more"
        for key, x in counts.items()
        if x is not None and (type(x) is not int or x < 1)
    ]
    for key, value, known in (("resize", resize, get_args(Method)), ("weights", weights, get_args(Weights))):
        if value not in known:
            wrong.append(f"{key}={value!r}; expected one of {', '.join(known)}")
    if wrong:
        raise UserError("\n".join(wrong))


def _override(source: Checkpoint, fields: dict[str, Any]) -> dict[str, Any]:
    """The model section with the caller's overrides."""
    known = claims.fields_of(source.settings["name"])
    if unknown := sorted(set(fields) - set(known)):
        others = ("grid", "resolution", "resize", "channels", "weights")
        raise UserError("\n".join(f"load_model has no {key}; {nearest(key, (*known, *others))}" for key in unknown))
    settings = {key: x for key, x in source.settings.items() if key in known or key == "name"}
    if fields.get("pool") == "unpooled" and "class_token" not in fields:
        settings["class_token"] = "yes" if "cls" in source.tensors else "no"
    claims.check_settings(settings | fields)
    return claims.as_fields(settings | fields)


def _trained_at(source: Checkpoint, module: ImageModel, grid: tuple[int, int] | None) -> tuple[int, int] | None:
    """(h, w) of the training images of the run that saved a checkpoint, if recorded and consistent with this grid."""
    if source.format != "run":  # only a run's meta is sealed; the meta of other files may hold anything
        return None
    trained = source.meta.get("config", {}).get("data", {}).get("resolution")
    return tuple(trained) if claims.is_pair(trained) and module.grid(tuple(trained)) == grid else None


def resolution_of(loaded: Loaded) -> tuple[int, int]:
    """(h, w) in pixels at which a model is evaluated: the run's own; else that of the loaded positions; 224 for a ResNet."""
    grid = loaded.grid
    return _trained_at(loaded.source, loaded.module, grid) or loaded.module.pixels(grid or (14, 14))


def parse_overrides(assignments: list[str]) -> dict[str, Any]:
    """Parses overrides written as text: ["grid=4,6", "pool=gap"] -> {"grid": (4, 6), "pool": "gap"}.

    Raises:
      UserError: an override has no `=`.
    """
    overrides = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"--set {assignment}: expected key=value")
        try:
            overrides[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            overrides[key] = text
    return overrides


def fingerprint(checkpoint: str) -> list[Any]:
    """Sizes and times of a checkpoint's files, which differ if another checkpoint takes its name. Empty for a released name."""
    if is_url(checkpoint):
        return fingerprint_of(checkpoint)
    path = Path(checkpoint).expanduser()
    path = path if path.exists() else Path(run_folder(checkpoint) or path)  # WORKDIR@best
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path] if path.exists() else []
    return [[str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns] for p in files]


def fit_head(loaded: Loaded, classes: Sequence[str], dataset: str) -> tuple[dict[str, Any], str]:
    """Returns parameters whose head scores a data set's classes in the data's order, and a note for the user, or "".

    Args:
      loaded: a model whose head has as many outputs as there are classes.
      classes: the data's class names, in order.
      dataset: the data's name, for messages.

    Raises:
      UserError: the classes differ.
    """
    path, names = loaded.source.path, loaded.source.meta.get("class_names")
    advice = "score it on data of its own classes, or fine-tune it to these first (configs/finetune.py)"
    order, note = match_classes(names, classes, path=path, dataset=dataset, advice=advice)
    if order is None:
        return loaded.params, note
    tensors = flatten_dict(loaded.params, sep="/")
    return unflatten_dict(tensors | reorder_head(tensors, order), sep="/"), note


def check_head(loaded: Loaded) -> None:
    """Refuses a head that was never trained: its scores are all equal, so an accuracy would mean nothing.

    Raises:
      UserError: no head, a kernel of zeros, or scores per token.
    """
    if loaded.settings.get("pool") == "unpooled":
        raise UserError(f"{loaded.source.path} scores every token and no image; load it with pool=token, gap or map")
    head = flatten_dict(loaded.params, sep="/").get("head/kernel")
    if head is None:
        raise UserError(f"{loaded.source.path} has no head to classify with; fine-tune it first (configs/finetune.py)")
    if not np.any(head):
        raise UserError(
            f"the head of {loaded.source.path} is all zeros: it was never trained, and every class scores the same; "
            f"fine-tune it first (configs/finetune.py)"
        )
