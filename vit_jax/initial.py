"""Where a run's parameters start: drawn, or taken from a checkpoint whose model the run then follows."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import ml_collections
import numpy as np
from flax import traverse_util

from vit_jax import config as configs
from vit_jax.convert.adapt import Fate, HeadPolicy, fit_params, fold_pixels
from vit_jax.convert.checkpoint import Checkpoint, Weights
from vit_jax.convert.claims import SIZES, model_of
from vit_jax.convert.classes import match_classes, reorder_head
from vit_jax.convert.open import open_checkpoint, without_positions
from vit_jax.models import build as models
from vit_jax.models.base import HEAD, IDENTITY, TRAINING, ImageModel, keys_of_role
from vit_jax.models.positions import Method
from vit_jax.models.variants import describe_sizes
from vit_jax.types import DatasetSpec, UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Init:
    """The `init` section: where parameters start.

    Args:
      path: "" to draw them; else a checkpoint of any format that `convert.open` opens: npz, safetensors, a Hugging Face
        or timm folder, a workdir of ours, a released model (`augreg:B/16`). `--config.init=PATH` sets it.
      head: `zeros` starts a new head and drops the checkpoint's with its representation layer; `keep` loads it, its outputs in
        the order of the data's classes where the checkpoint has their names.
      weights: of our own checkpoints, the raw parameters or their Polyak average.
      architecture: `config` takes the model's sizes from the config, and the checkpoint must fit; `source` takes them
        from the checkpoint. GELU and LayerNorm epsilon follow the checkpoint in both.
      grid: (gh, gw) that the checkpoint's positions were trained at, for a file that does not tell; (0, 0) if it does.
      resize: how positions are brought to another grid: `bilinear_corners` as the release, `bilinear`, `bicubic` (Hugging
        Face) or `bicubic_antialias` (timm).
    """

    path: str = ""
    head: HeadPolicy = "zeros"
    weights: Weights = "raw"
    architecture: Literal["config", "source"] = "config"
    grid: tuple[int, int] = (0, 0)
    resize: Method = "bilinear_corners"


def adopt_source(
    config: ml_collections.ConfigDict, chosen: set[str], resumed: dict[str, Any] | None
) -> Checkpoint | None:
    """Writes what the checkpoint of `init` says of its model into the model section, in place.

    Args:
      config: resolved.
      chosen: keys that the user set by hand, `model.num_heads`; they stay.
      resumed: the config saved with a run that goes on; then the checkpoint is not opened.

    Returns:
      The checkpoint, if it was opened.

    Raises:
      UserError: the checkpoint cannot be read, or its patches do not divide a resolution set by hand.
    """
    init = configs.build(Init, config.init)
    if not init.path:
        return None
    whole = init.architecture == "source"
    source = None
    if resumed is not None and resumed.get("init", {}).get("path") == init.path:
        found: dict[str, Any] = {key: tuple(x) if isinstance(x, list) else x for key, x in resumed["model"].items()}
    else:
        told = not whole or "model.num_heads" in chosen
        source = open_checkpoint(
            init.path,
            weights=init.weights,
            num_heads=int(config.model.get("num_heads", 0)) if told else 0,
            grid=init.grid if all(init.grid) else None,
        )
        found = source.settings
        _check_model(config, source, chosen, whole=whole)
    kind = model_of(found["name"])
    training, head, identity = (keys_of_role(kind, role) for role in (TRAINING, HEAD, IDENTITY))
    skip = training | (head if init.head == "zeros" else set())
    # The identity is taken from the checkpoint even where the config spells out the sizes.
    adopted = {
        key: x
        for key, x in found.items()
        if key not in skip and f"model.{key}" not in chosen and (whole or key in identity)
    }
    with config.unlocked(), config.ignore_type():
        if whole:
            known = {"name", *configs.hints(kind)}
            for key in [key for key in config.model if key not in known]:
                del config.model[key]
        for key, value in adopted.items():
            if whole or key in config.model:
                config.model[key] = value
        if whole:
            _suit_resolution(config, source, by_hand="data.resolution" in chosen)
    return source


def _check_model(config: ml_collections.ConfigDict, source: Checkpoint, chosen: set[str], *, whole: bool) -> None:
    """Refuses a checkpoint whose model is not the config's, and one whose positions the config has to decide and does not.

    Raises:
      UserError: names both models and the key to leave out, or the key to set.
    """
    found = ({"stem": "none"} if source.settings["name"] == "vit" else {}) | source.settings
    spelt = {key: x for key, x in config.model.items() if not whole or f"model.{key}" in chosen}
    other = [key for key in SIZES if key in spelt and key in found and spelt[key] != found[key]]
    head = keys_of_role(model_of(found["name"]), HEAD)
    if differing := [key for key in other if key not in head]:
        what = "`variant` out of --config"
        if whole:
            what = " and ".join(f"--config.model.{key}" for key in differing) + " out"
        raise UserError(
            f"config.model is {describe_sizes(found | spelt)}, and the model of {config.init.path} is "
            f"{describe_sizes(found)}; leave {what}, and the model is the checkpoint's"
        )
    said = "model.positions" in chosen or (not whole and config.model.get("positions") in ("none", "sincos_2d"))
    if "positions" in source.undecided and not said:
        raise UserError(f"{without_positions(config.init.path)}; set --config.model.positions to one of them")


def _suit_resolution(config: ml_collections.ConfigDict, source: Checkpoint | None, *, by_hand: bool) -> None:
    """Makes the images' size one that the adopted model takes; a Mixer takes only one."""
    old = tuple(config.data.resolution)
    model = configs.build(model_of(config.model.name), config.model)
    only = source.grid if config.model.name == "mixer" and source is not None else None
    new = model.pixels(only) if only else model.suit(old)
    if new != old and by_hand:
        raise UserError(
            f"config.data.resolution is {old[0]}x{old[1]}, and the model of {config.init.path} takes {new[0]}x{new[1]}; set "
            "that, or leave it out"
        )
    config.data.resolution = new
    for section in config.evals.values():
        if tuple(section.get("resolution", ())) == old:
            section.resolution = new


def keep_head(config: ml_collections.ConfigDict, source: Checkpoint | None, spec: DatasetSpec) -> None:
    """Makes the head that `init.head=keep` keeps score the training data's classes in their order.

    Args:
      config: resolved, with the number of the model's classes.
      source: the checkpoint, its head changed in place; None for a run that resumes, whose head is in that order already.
      spec: of the training data.

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


def initial_params(
    config: ml_collections.ConfigDict, model: ImageModel, source: Checkpoint | None = None
) -> tuple[Any, list[Fate]]:
    """Draws the parameters, or fits those of `config.init` to the model.

    Args:
      config: resolved.
      model: of the config.
      source: the checkpoint of `init`, if `adopt_source` opened it.

    Returns:
      (tree of host arrays, what became of every tensor; empty if they were drawn).

    Raises:
      UserError: `init.path` cannot be read or does not fit.
    """
    drawn = models.init_params(model, jax.random.key(config.seed), config.data.resolution)
    init = configs.build(Init, config.init)
    if not init.path:
        return drawn, []
    if source is None:
        grid = init.grid if all(init.grid) else None
        heads = int(config.model.get("num_heads", 0))
        source = open_checkpoint(init.path, weights=init.weights, num_heads=heads, grid=grid)
    fresh = {name: np.asarray(x) for name, x in traverse_util.flatten_dict(drawn, sep="/").items()}
    new_grid = model.grid(config.data.resolution)
    source, folded = fold_pixels(source)
    fitted, fates = fit_params(
        source, models.unstack_layers(fresh), head=init.head, new_grid=new_grid, resize=init.resize
    )
    fitted = models.stack_layers(fitted) if model.scan else fitted
    return traverse_util.unflatten_dict(fitted, sep="/"), folded + fates
