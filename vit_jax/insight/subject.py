"""A checkpoint that is to be explained: what its model captures, and which of its tokens are patches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vit_jax.convert.load import Loaded, resolution_of
from vit_jax.insight.images import recipe_of
from vit_jax.models.base import ImageModel
from vit_jax.models.build import make_forward, unstack_layers
from vit_jax.types import Outputs, UserError

BYTES = 2**28  # of attention weights that are in memory at a time, unless one image has more
MOST = 32  # images in a batch


class Tokens(NamedTuple):
    """The sequence of tokens inside a model, in its order.

    Args:
      class_token: whether the first is a class token.
      registers: number of registers, which follow it.
      grid: (gh, gw) of the patches, which follow these.
      after: number of tokens after the patches, such as a detector's.
    """

    class_token: bool
    registers: int
    grid: tuple[int, int]
    after: int

    @property
    def first(self) -> int:
        """Place of the first patch."""
        return int(self.class_token) + self.registers

    @property
    def patches(self) -> slice:
        """Places of the patches."""
        return slice(self.first, self.first + self.grid[0] * self.grid[1])


class Subject(NamedTuple):
    """A model that is ready to be looked into.

    Args:
      module: with its layers apart.
      params: its parameters.
      resolution: (h, w) of its images, pixels.
      recipe: prepares its images.
      capture: what it captures.
      tokens: its sequence; None for a model without tokens between layers.
      depth: number of its layers; 0 if it captures none.
      classifies: whether it gives an image logits of classes.
      batch_size: images per batch, so that attention weights fit into memory.
      notes: a line for each thing that the model does not have.
    """

    module: ImageModel
    params: Mapping[str, Any]
    resolution: tuple[int, int]
    recipe: str
    capture: tuple[str, ...]
    tokens: Tokens | None
    depth: int
    classifies: bool
    batch_size: int
    notes: tuple[str, ...]

    def compiled(self, capture: Sequence[str]) -> Callable[[np.ndarray], Outputs]:
        """The compiled model, uint8 (b, h, w, 3) -> Outputs with some of what it captures."""
        forward = jax.jit(functools.partial(make_forward(self.module), capture=tuple(capture)))
        params = jax.device_put(self.params)
        return lambda images: forward(params, images)


def prepare(loaded: Loaded) -> Subject:
    """Finds out what a model captures.

    Args:
      loaded: a checkpoint, loaded with `stored_pixels=True`.

    Raises:
      UserError: the model does not accept images of its own resolution.
    """
    module, params = loaded.module, loaded.params
    if module.scan:
        params = unflatten_dict(unstack_layers(flatten_dict(params, sep="/")), sep="/")
        module = module.clone(scan=False)
    resolution = resolution_of(loaded)
    capture, outputs = _find_capture(module, params, resolution)
    notes = []
    depth, batch_size, tokens = len(outputs.layers or ()), MOST, None
    if "attention" in capture and outputs.attention[0].shape[-1] != outputs.layers[0].shape[1]:
        capture = ("layers",)  # attention along rows of patches
    if "attention" in capture:
        size = sum(x.size * x.dtype.itemsize for x in outputs.attention) // len(outputs.attention[0])
        batch_size = max(1, min(MOST, BYTES // size))
    else:
        notes.append(
            "The model has no attention weights among all patches: it has neither rollout nor attention distances, entropies and "
            "maps of heads."
        )
    if "layers" in capture:
        gh, gw = module.grid(resolution)
        n = outputs.layers[0].shape[1]
        class_token = bool(getattr(module, "has_class_token", n > gh * gw))
        registers = int(getattr(module, "registers", 0))
        tokens = Tokens(class_token, registers, (gh, gw), n - gh * gw - registers - class_token)
    else:
        notes.append(
            "The model captures no tokens between its layers: it has neither norms of tokens nor a similarity of layers."
        )
    if "attention" in capture and tokens and "probe" in outputs.extra:
        notes.append(
            "The model pools by a probe's attention, with which its rollouts end; the maps of heads are of the class token, or "
            "else means over the patches that attend."
        )
    elif "attention" in capture and tokens and tokens.after:
        notes.append("The model answers with its detection tokens: its maps are means over those.")
    elif "attention" in capture and tokens and not tokens.class_token:
        notes.append("The model has no class token: its maps are means over the patches that attend.")
    recipe = recipe_of(loaded.source.meta)
    logits = outputs.logits
    classifies = logits is not None and logits.ndim == 2 and logits.shape[1] > 0
    return Subject(module, params, resolution, recipe, capture, tokens, depth, classifies, batch_size, tuple(notes))


def _find_capture(
    module: ImageModel, params: Mapping[str, Any], resolution: tuple[int, int]
) -> tuple[tuple[str, ...], Any]:
    """What a model captures, and the shapes of its outputs for one image."""
    image = jax.ShapeDtypeStruct((1, *resolution, 3), np.uint8)
    forward = make_forward(module)
    for capture in (("layers", "attention"), ("layers",)):
        try:
            return capture, jax.eval_shape(functools.partial(forward, capture=capture), params, image)
        except (UserError, TypeError):  # a model from outside may not know the argument
            continue
    return (), jax.eval_shape(forward, params, image)
