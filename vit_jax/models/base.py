"""The base class of models. A model describes itself (its grid, its plan, its fields' roles), so no other room knows its fields.

A new model is a subclass with fields, `__call__(images, *, train=False) -> Outputs` and `grid`, and an entry in `MODELS`. Name
its head `head` (`heads.classifier`): then a new task can replace the head, and predictions find it. If the model also accepts
`capture`, the insight room can look inside it.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn

from vit_jax.models.attention import Case

# Roles of a field, as its dataclass metadata: `dropout: float = dataclasses.field(default=0.0, metadata=TRAINING)`.
TRAINING = {"role": "training"}  # chosen for each training; no checkpoint decides it
DEVICE = {"role": "device"}  # how a training is computed on its devices; a checkpoint is loaded without it
HEAD = {"role": "head"}  # belongs to the head: taken from the checkpoint only if its head is kept
IDENTITY = {"role": "identity"}  # changes every number but no shape: always taken from the checkpoint


class ImageModel(nn.Module):
    """A model of images."""

    classifies = True  # whether it has a head, of which `num_classes` is the size
    scan = False  # whether the parameters of its layers are stacked; a model that supports this defines a field

    def grid(self, resolution: tuple[int, int]) -> tuple[int, int]:
        """(gh, gw) of the tokens that the model makes from an image of (h, w) pixels; for a CNN, of its last features."""
        raise NotImplementedError

    def pixels(self, grid: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of images that have this grid; used for a checkpoint that does not record its resolution."""
        del grid
        return 224, 224

    def suit(self, resolution: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of images that the model accepts, near a resolution chosen for another model."""
        return resolution

    def describe(self, resolution: tuple[int, int]) -> list[tuple[str, str]]:
        """Rows (row, text) for a run's plan: `model` and `images` complete existing rows, `note` is a note, others are new."""
        del resolution
        return []

    def attends(self, resolution: tuple[int, int]) -> Case | None:
        """The facts that decide the core of its attention, those of the device aside; None for a model without such a choice."""
        del resolution
        return None

    def layers_flops(self, resolution: tuple[int, int]) -> int:
        """Floating-point operations of the layers that `scan` concerns, to train on an image; roughly."""
        del resolution
        return 0

    @property
    def first_layer(self) -> str:
        """Name of the layer whose kernel (h, w, channels, features) sees the image's channels."""
        return "embedding"


def keys_of_role(model: type[nn.Module], role: dict[str, str]) -> set[str]:
    """Names of the fields that have a role."""
    return {field.name for field in dataclasses.fields(model) if field.metadata.get("role") == role["role"]}
