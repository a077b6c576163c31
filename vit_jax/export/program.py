"""The function that an export holds: uint8 images in, named arrays out; the parameters are constants in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from vit_jax.convert.load import Loaded, check_head
from vit_jax.data.image.recipes import Transform
from vit_jax.detect import Detector, is_detector
from vit_jax.models.build import make_forward, unstack_layers
from vit_jax.predict import classes_of, transform_of
from vit_jax.types import Outputs, UserError

Output = Literal["probabilities", "features", "boxes"]


class Program(NamedTuple):
    """A model that is ready to be written to a file.

    Args:
      run: uint8 (b, h, w, channels) -> {name: float32 (b, ...)}.
      transform: how images become its input; its resolution is (h, w).
      channels: of the images.
      output: what was asked for.
      names: of the arrays that it returns, sorted, as JAX orders a dict.
      classes: names of the classes, in the order of the scores; empty for features.
      dtype: compute dtype.
      source: the checkpoint as the user named it.
    """

    run: Callable[[Any], dict[str, Any]]
    transform: Transform
    channels: int
    output: Output
    names: tuple[str, ...]
    classes: tuple[str, ...]
    dtype: str
    source: str


def make_program(loaded: Loaded, output: Output | None = None) -> Program:
    """Makes the function of a model that was loaded with `stored_pixels=True`.

    Args:
      loaded: the model. Its layers become one after the other, without dropout and with the plain attention, which every
        device has.
      output: `probabilities` of the classes (of a model of numbers, `values`); `features`, what the head reads; of a detector,
        `boxes` (b, q, 4), left, top, right and bottom as shares of the image, and `scores` (b, q, c). None for what the model
        has: boxes, or probabilities if it has a head, or features.

    Raises:
      UserError: the model has no such output.
    """
    if output not in (None, *get_args(Output)):
        raise UserError(f"output is {output!r}; expected {', '.join(get_args(Output))}")
    detects = is_detector(loaded)
    output = output or ("boxes" if detects else "probabilities" if loaded.settings.get("num_classes") else "features")
    if output == "boxes" and not detects:
        raise UserError(f"{loaded.source.path} is no detector and has no boxes; export its probabilities or features")
    if output == "probabilities":
        check_head(loaded)
    plain: dict[str, Any] = {"scan": False, "attention": "xla", "remat": "none"}
    fields = {field.name for field in dataclasses.fields(loaded.module)}
    module = loaded.module.clone(**{key: value for key, value in plain.items() if key in fields})
    tensors = flatten_dict(loaded.params, sep="/")
    params = unflatten_dict(unstack_layers(tensors), sep="/")
    forward = make_forward(module)
    target = str(loaded.source.meta.get("target", "ClassId"))
    has_values = output == "probabilities" and target == "Values"

    def run(images: Any) -> dict[str, Any]:
        outputs: Outputs = forward(params, images)
        if output == "boxes":
            return read_boxes(outputs)
        if output == "features":
            return {output: outputs.pre_logits.astype(jnp.float32)}
        if has_values:
            return {"values": outputs.logits}
        return {output: (jax.nn.sigmoid if target == "ClassSet" else jax.nn.softmax)(outputs.logits)}

    channels = tensors[f"{module.first_layer}/kernel"].shape[2]
    transform = Detector.of(loaded).transform if detects else transform_of(loaded)
    classes = () if output == "features" else classes_of(loaded)
    dtype = str(loaded.settings.get("dtype", "float32"))
    names = ("boxes", "scores") if output == "boxes" else ("values",) if has_values else (output,)
    return Program(run, transform, channels, output, names, classes, dtype, loaded.source.path)


def read_boxes(outputs: Outputs) -> dict[str, Any]:
    """A detector's answers: corners of the boxes, and the probability of each class, without that of no object."""
    centre, size = outputs.extra["boxes"][..., :2], outputs.extra["boxes"][..., 2:]  # b q 2
    corners = jnp.concatenate([centre - size / 2, centre + size / 2], axis=-1)
    return {"boxes": corners, "scores": jax.nn.softmax(outputs.extra["class_logits"])[..., :-1]}


def abstract_images(program: Program) -> jax.ShapeDtypeStruct:
    """The input, with a batch of any size: the shape's first entry is a symbol."""
    h, w = program.transform.resolution
    return jax.ShapeDtypeStruct(jax.export.symbolic_shape(f"b, {h}, {w}, {program.channels}"), jnp.uint8)
