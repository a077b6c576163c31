"""Where a run's parameters start: drawn, or taken from a checkpoint, whose model `settle` makes the config follow."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import numpy as np
from flax import traverse_util

from vit_jax import config as configs
from vit_jax.config import Config
from vit_jax.convert.adapt import Fate, HeadPolicy, fit_params, fold_pixels
from vit_jax.convert.checkpoint import Checkpoint, Weights
from vit_jax.convert.classes import match_classes, reorder_head
from vit_jax.convert.encoder import suit
from vit_jax.convert.open import open_checkpoint
from vit_jax.models import build as models
from vit_jax.models.base import ImageModel
from vit_jax.models.positions import Method
from vit_jax.types import DatasetSpec, UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Init:
    """The `init` section: where parameters start.

    Args:
      path: "" to draw them; else a checkpoint of any format that `convert.open` opens: npz, safetensors, a Hugging Face
        or timm folder, a workdir of vit_jax, a released model (`augreg:B/16`). `--config.init=PATH` sets it.
      head: `zeros` starts a new head and drops the checkpoint's with its representation layer; `keep` loads it, and reorders its
        outputs to the data's classes if the checkpoint has class names.
      weights: which parameters of a vit_jax checkpoint to load, the raw ones or their Polyak average.
      architecture: `config` takes the model's sizes from the config, and the checkpoint must fit; `source` takes them
        from the checkpoint. GELU and LayerNorm epsilon follow the checkpoint in both.
      grid: (gh, gw) that the checkpoint's positions were trained at, for a file that does not record it; None if it does.
      resize: how positions are resized to another grid: `bilinear_corners` as the release, `bilinear`, `bicubic` (Hugging
        Face) or `bicubic_antialias` (timm).
    """

    path: str = ""
    head: HeadPolicy = "zeros"
    weights: Weights = "raw"
    architecture: Literal["config", "source"] = "config"
    grid: tuple[int, int] | None = None
    resize: Method = "bilinear_corners"


def open_init(config: Config, by_hand: frozenset[str]) -> Checkpoint | None:
    """Opens the checkpoint of `init`, if it names one.

    Args:
      config: resolved.
      by_hand: keys that the user set on the command line, `model.num_heads`.

    Raises:
      UserError: the checkpoint cannot be read.
    """
    init = configs.build(Init, config.init)
    if not init.path:
        return None
    # The config's head count describes its own model, unless the user set it for the checkpoint's model.
    own_model = init.architecture == "config" or "model.num_heads" in by_hand
    heads = int(config.model.get("num_heads", 0)) if own_model else 0
    return suit(open_checkpoint(init.path, weights=init.weights, num_heads=heads, grid=init.grid), config.model)


def keep_head(config: Config, source: Checkpoint | None, spec: DatasetSpec) -> None:
    """Makes a head kept by `init.head=keep` score the training data's classes in their order.

    Args:
      config: resolved, with the model's number of classes.
      source: the checkpoint, whose head is changed in place; None when a run resumes, because its head has that order already.
      spec: the DatasetSpec of the training data.

    Raises:
      UserError: the head has other classes.
    """
    advice = "use --config.init.head=zeros for a new head"
    if config.model.num_classes != spec.num_classes:
        raise UserError(
            f"config.init.head=keep keeps a head of {config.model.num_classes} classes, and {spec.name} has "
            f"{spec.num_classes}; {advice}"
        )
    if source is None or "head/kernel" not in source.tensors:
        return
    names = source.meta.get("class_names")
    order, note = match_classes(names, spec.class_names, path=source.path, dataset=spec.name, advice=advice)
    if order is not None:
        source.tensors |= reorder_head(source.tensors, order)
        source.reordered = note
    elif note:
        source.assumed.append(note)


def initial_params(config: Config, model: ImageModel, source: Checkpoint | None = None) -> tuple[Any, list[Fate]]:
    """Draws the parameters, or fits those of `config.init` to the model.

    Args:
      config: resolved.
      model: the config's model.
      source: the checkpoint of `init`, if `open_init` has opened it.

    Returns:
      (tree of host arrays, the fate of every tensor of the checkpoint; empty if the parameters were drawn).

    Raises:
      UserError: `init.path` cannot be read or does not fit.
    """
    drawn = models.init_params(model, jax.random.key(config.seed), config.data.resolution)
    init = configs.build(Init, config.init)
    if not init.path:
        return drawn, []
    if source is None:
        heads = int(config.model.get("num_heads", 0))
        opened = open_checkpoint(init.path, weights=init.weights, num_heads=heads, grid=init.grid)
        source = suit(opened, config.model)
    fresh = {name: np.asarray(x) for name, x in traverse_util.flatten_dict(drawn, sep="/").items()}
    new_grid = model.grid(config.data.resolution)
    source, folded = fold_pixels(source)
    fitted, fates = fit_params(
        source, models.unstack_layers(fresh), head=init.head, new_grid=new_grid, resize=init.resize
    )
    fitted = models.stack_layers(fitted) if model.scan else fitted
    return traverse_util.unflatten_dict(fitted, sep="/"), folded + fates
