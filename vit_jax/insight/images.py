"""The images on which a model is explained: files, folders or a data set by name, evenly spread over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from vit_jax.data.formats.folders import FolderSource
from vit_jax.data.formats.listing import PATTERNS, list_images
from vit_jax.data.image.recipes import RECIPES
from vit_jax.data.open import open_source
from vit_jax.data.source import Source
from vit_jax.targets import ClassId
from vit_jax.types import DatasetSpec, UserError


def open_images(names: Sequence[str], split: str, count: int, data_dir: str = "") -> Source:
    """Opens images, files that cannot be read included: the loader counts those.

    Args:
      names: files, and folders of which all images in and below them are meant; or one data set's name.
      split: of a data set.
      count: largest number of images, evenly spaced over all; 0 for all.
      data_dir: see `open_source`.

    Raises:
      UserError: a folder without images, or a data set that cannot be opened.
    """
    places = [Path(name).expanduser() for name in names]
    if len(names) == 1 and not places[0].exists() and "/" not in names[0].removeprefix("vtab/"):
        source = open_source(names[0], split, data_dir, multi_label=True, values=True, boxes=True)
    else:
        files: list[str] = []
        for place in places:
            inside = (
                [str(place / name) for name in list_images(epath.Path(place))[0]] if place.is_dir() else [str(place)]
            )
            if not inside:
                raise UserError(f"{place} has no image in it or below: expected {PATTERNS}; give a folder of images")
            files += inside
        spec = DatasetSpec(", ".join(map(str, names)), "", len(files), ClassId(1), ("",), (None, None, 3))
        source = FolderSource(spec, "", files, np.zeros(len(files), np.int32))
    if not count or count >= len(source):
        return source
    return source.subset(np.linspace(0, len(source) - 1, count).round().astype(np.int64))


def name_of(source: Source, index: int) -> str:
    """An example's name, for people."""
    ids = source.ids([index])
    return ids[0] if ids else source.read(index)[2]


def recipe_of(meta: Mapping[str, Any]) -> str:
    """The recipe that prepares images for a checkpoint: that of its run's evaluation, else the release's."""
    saved = (meta.get("preprocessing") or {}).get("recipe")
    return saved if saved in RECIPES and not RECIPES[saved].is_random else "eval"
