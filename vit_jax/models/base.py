"""The answers that a model gives about itself, so that no other room knows its fields: its grid, its plan, its fields' roles.

A new model is a subclass with fields, `__call__(images, *, train=False) -> Outputs` and `grid`, and an entry in `MODELS`. Call
its head `head` (`heads.classifier`): a new task then starts a new head, and predictions find it. Where it takes `capture` too,
insight can look inside.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn

# Roles of a field, as its dataclass metadata: `dropout: float = dataclasses.field(default=0.0, metadata=TRAINING)`.
TRAINING = {"role": "training"}  # training chooses it, and no checkpoint decides it
HEAD = {"role": "head"}  # of the head: the checkpoint's only where its head is kept
IDENTITY = {"role": "identity"}  # changes every number and shows in no shape: always the checkpoint's


class ImageModel(nn.Module):
    """A model of images."""

    scan = False  # whether the parameters of its layers are stacked; a model that can do so makes a field of it

    def grid(self, resolution: tuple[int, int]) -> tuple[int, int]:
        """(gh, gw) of the tokens that the model makes of an image of (h, w) pixels; of a CNN, of its last features."""
        raise NotImplementedError

    def pixels(self, grid: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of images that have such a grid; for a checkpoint that does not say its resolution."""
        del grid
        return 224, 224

    def suit(self, resolution: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of images that the model takes, near a resolution that was meant for another model."""
        return resolution

    def describe(self, resolution: tuple[int, int]) -> list[tuple[str, str]]:
        """Rows (row, text) for the plan of a run: `model` and `images` complete its rows, `note` is a note, others are new."""
        del resolution
        return []

    @property
    def first_layer(self) -> str:
        """Name of the layer whose kernel (h, w, channels, features) sees the image's channels."""
        return "embedding"


def keys_of_role(model: type[nn.Module], role: dict[str, str]) -> set[str]:
    """Names of the fields that have a role."""
    return {field.name for field in dataclasses.fields(model) if field.metadata.get("role") == role["role"]}
