"""An opened checkpoint of any format: tensors under vit_jax names, and everything known about its model."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

Weights = Literal["raw", "average"]


@dataclasses.dataclass
class Checkpoint:
    """A checkpoint in vit_jax's terms.

    Args:
      path: the path as the user wrote it.
      format: `npz`, `hf`, `timm` or `run`.
      tensors: {vit_jax name: array as stored}, layers apart.
      settings: the model section, as far as the checkpoint determines it: sizes, options, `gelu`, `norm_eps`.
      grid: (gh, gw) that the positions were trained at; None if unknown.
      origin: {vit_jax name: name in the file}, where they differ.
      aside: {name in the file: why the tensor belongs to no image model}.
      meta: class names and preprocessing, if the checkpoint keeps them; `pixel_mean` and `pixel_std` if its images are
        normalised by values other than 0.5 and 0.5.
      assumed: assumptions about facts that no source gave, a sentence each.
      undecided: keys of the model section that neither tensors nor a config determine; the caller has to set them.
      without: beginnings of the names of parameters that a model starts anew, because the checkpoint's has none.
      reordered: why the order of the head's outputs differs from the file; empty if it does not.
    """

    path: str
    format: str
    tensors: dict[str, np.ndarray]
    settings: dict[str, Any]
    grid: tuple[int, int] | None = None
    origin: dict[str, str] = dataclasses.field(default_factory=dict)
    aside: dict[str, str] = dataclasses.field(default_factory=dict)
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)
    assumed: list[str] = dataclasses.field(default_factory=list)
    undecided: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    reordered: str = ""
