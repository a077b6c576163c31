"""An opened checkpoint, whatever its format was: tensors under our names, and all that is known about its model."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

Weights = Literal["raw", "average"]


@dataclasses.dataclass
class Checkpoint:
    """A checkpoint in our terms.

    Args:
      path: as the user named it.
      format: `npz`, `hf`, `timm` or `run`.
      tensors: {our name: array as stored}, layers apart.
      settings: the model section, as far as the checkpoint tells: sizes, options, `gelu`, `norm_eps`.
      grid: (gh, gw) that the positions were trained at; None if nothing tells.
      origin: {our name: name in the file}, where they differ.
      aside: {name in the file: why no model of images has it}.
      meta: class names and preprocessing, where the checkpoint keeps them; `pixel_mean` and `pixel_std` where its images
        are normalised by others than 0.5 and 0.5.
      assumed: what nothing told and was taken for granted, a sentence each.
      undecided: keys of the model section that neither tensors nor a config determine; the caller has to set them.
      reordered: why the head's outputs are in another order than in the file; empty if they are not.
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
    reordered: str = ""
