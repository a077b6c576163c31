"""Where a run's parameters start: drawn, or taken from a checkpoint whose model the run then follows.

Called by: assemble (the `init` section, `adopt_source`), run (`initial_params`).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import jax
import ml_collections
import numpy as np
from flax import traverse_util

from vit_jax import config as configs
from vit_jax.convert.adapt import Fate, HeadPolicy, fit_params
from vit_jax.convert.source import Source, Weights, open_source
from vit_jax.models import build as models
from vit_jax.models.positions import Method

# What training chooses and no checkpoint decides; with head=keep the head is the checkpoint's too.
TRAINING_KEYS = {"dropout", "attention_dropout", "stochastic_depth", "head_bias", "dtype", "scan", "remat"}
HEAD_KEYS = {"num_classes", "representation_size"}
# What changes every number and shows in no shape: taken from the checkpoint even where the config spells out the sizes.
ALWAYS = {"gelu", "norm_eps"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Init:
    """The `init` section: where parameters start.

    Args:
      path: "" to draw them; else a checkpoint of any format that `convert.source` opens: npz, safetensors, a Hugging Face
        or timm folder, a workdir of ours, a released model (`augreg:B/16`). `--config.init=PATH` sets it.
      head: `zeros` starts a new head and drops the checkpoint's with its representation layer; `keep` loads it.
      weights: of our own checkpoints, the raw parameters or their Polyak average.
      architecture: `config` takes the model's sizes from the config, and the checkpoint must fit; `source` takes them
        from the checkpoint. GELU and LayerNorm epsilon follow the checkpoint in both.
      resize: how positions are brought to another grid: `bilinear_corners` as the release, `bilinear`, `bicubic` (Hugging
        Face) or `bicubic_antialias` (timm).
    """

    path: str = ""
    head: HeadPolicy = "zeros"
    weights: Weights = "raw"
    architecture: Literal["config", "source"] = "config"
    resize: Method = "bilinear_corners"


@functools.lru_cache(maxsize=1)
def _opened(path: str, weights: Weights, num_heads: int) -> Source:
    """The checkpoint, read once although the config and the parameters both ask for it."""
    return open_source(path, weights=weights, num_heads=num_heads)


def _open(config: ml_collections.ConfigDict) -> Source:
    init = configs.build(Init, config.init)
    heads = 0 if init.architecture == "source" else int(config.model.get("num_heads", 0))
    return _opened(init.path, init.weights, heads)


def adopt_source(config: ml_collections.ConfigDict, chosen: set[str], resumed: dict[str, Any] | None) -> None:
    """Writes what the checkpoint of `init` says of its model into the model section, in place.

    Args:
      config: completed, overrides applied.
      chosen: keys of the model section that the user set by hand; they stay.
      resumed: the config saved with a run that goes on; then the checkpoint is not opened.

    Raises:
      UserError: the checkpoint cannot be read.
    """
    init = configs.build(Init, config.init)
    if not init.path:
        return
    whole = init.architecture == "source"
    if resumed is not None and resumed.get("init", {}).get("path") == init.path:
        found: dict[str, Any] = {key: tuple(x) if isinstance(x, list) else x for key, x in resumed["model"].items()}
    else:
        found = _open(config).settings
    family = str(found["name"])
    skip = chosen | TRAINING_KEYS | (HEAD_KEYS if init.head == "zeros" else set())
    adopted = {key: x for key, x in found.items() if key not in skip and (whole or key in ALWAYS)}
    with config.unlocked(), config.ignore_type():
        if whole:
            known = {"name", *configs.hints(models.MODELS[family])}
            for key in [key for key in config.model if key not in known]:
                del config.model[key]
        for key, value in adopted.items():
            if whole or key in config.model:
                config.model[key] = value
        if whole and "patch_size" in config.model and config.model.get("stem", "none") == "none":
            sides = zip(config.data.resolution, config.model.patch_size, strict=True)
            config.data.resolution = tuple(max(side // patch, 1) * patch for side, patch in sides)


def initial_params(config: ml_collections.ConfigDict, model: Any) -> tuple[Any, list[Fate]]:
    """Draws the parameters, or fits those of `config.init` to the model.

    Returns:
      (tree of host arrays, what became of every tensor; empty if they were drawn).

    Raises:
      UserError: `init.path` cannot be read or does not fit.
    """
    drawn = models.init_params(model, jax.random.key(config.seed), config.data.resolution)
    init = configs.build(Init, config.init)
    if not init.path:
        return drawn, []
    fresh = {name: np.asarray(x) for name, x in traverse_util.flatten_dict(drawn, sep="/").items()}
    new_grid = models.token_grid(model, config.data.resolution)
    fitted, fates = fit_params(
        _open(config), models.unstack_layers(fresh), head=init.head, new_grid=new_grid, resize=init.resize
    )
    _opened.cache_clear()
    fitted = models.stack_layers(fitted) if getattr(model, "scan", False) else fitted
    return traverse_util.unflatten_dict(fitted, sep="/"), fates
