"""The recipes that turn a decoded image into a model's input (arXiv 2010.11929, appendix B.1 and section 4.1), and their
description for checkpoints."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vit_jax.data.image.augment import Augment
from vit_jax.data.image.decode import Image
from vit_jax.data.image.steps import (
    CentralCrop,
    Example,
    Fit,
    Flip,
    InceptionCrop,
    RandomCrop,
    RandomPart,
    Resize,
    ResizeSmall,
    Step,
    View,
)
from vit_jax.targets import Boxes, BoxLabel, Target
from vit_jax.types import UserError


class Recipe(NamedTuple):
    """One row of RECIPES.

    Args:
      steps: applied one after another; the last leaves an image of the resolution.
      source: whose recipe it is.
    """

    steps: tuple[Step, ...]
    source: str

    @property
    def is_random(self) -> bool:
        """Whether it draws anything: such a recipe is for training."""
        return any(step.is_random for step in self.steps)


RECIPES: dict[str, Recipe] = {
    "pretrain": Recipe((InceptionCrop(), Flip()), "the release's pre-training and fine-tuning"),
    "finetune": Recipe((Resize(7 / 6), RandomCrop(), Flip()), "arXiv 1912.11370; VTAB: 448 -> 384"),
    "finetune_small": Recipe(
        (ResizeSmall(7 / 6), RandomCrop(), Flip()), "big_vision transfer: shorter side 448 -> 384"
    ),
    "resize_flip": Recipe((Resize(1.0), Flip()), "VTAB tasks whose label a crop would change"),
    "eval": Recipe((Resize(1.0),), "the release"),
    "eval_crop": Recipe((ResizeSmall(8 / 7), CentralCrop()), "big_vision: shorter side 256 -> 224"),
    "fewshot": Recipe((Resize(8 / 7), CentralCrop()), "big_vision few-shot: 256 -> 224"),
    "detect": Recipe((RandomPart(), Flip(), Fit(0.6)), "DETR and YOLOS, on a canvas of one size"),
    "detect_fit": Recipe((RandomPart(), Flip(), Fit()), "DETR and YOLOS, on canvases of several sizes (data.sizes)"),
    "detect_eval": Recipe((Fit(),), "DETR and YOLOS, on a canvas of one size"),
    "objectnet": Recipe((ResizeSmall(16 / 15), CentralCrop()), "arXiv 1912.11370: shorter side 512 -> 480"),
}


@dataclass(frozen=True, kw_only=True)
class Transform(View):
    """A recipe at a resolution, with augmentation: call it with (example, rng). Made by `make_transform`; picklable.

    Args:
      resolution, crop_area, flip: see `View`.
      recipe: a key of RECIPES.
      steps: those of the recipe, then those of the augmentation.
    """

    recipe: str
    steps: tuple[Step, ...]

    @property
    def crops_first(self) -> bool:
        """Whether a crop comes first, so that the image may be a `TopOfJpeg`."""
        return self.steps[0].only_crops

    def __call__(self, example: Example, rng: np.random.Generator, out: Image | None = None) -> Example:
        """Applies the steps; all randomness comes from `rng`.

        Args:
          example: image uint8 (h, w, 3).
          rng: where the randomness comes from.
          out: uint8 (*resolution, 3), where the resulting image lies if the last steps can write there; else it is a new array.

        Returns:
          The example; its image is uint8 (*resolution, 3), contiguous.
        """
        if isinstance(example.target, BoxLabel):
            example = example._replace(target=example.target._replace(size=example.size))
        for step in self.steps:
            example = step(example, rng, self, out)
        if example.image.flags.c_contiguous:
            return example
        return example._replace(image=np.ascontiguousarray(example.image))

    def map_image(self, image: Image, rng: np.random.Generator, out: Image | None = None) -> Image:
        """Applies the steps to an image that has no target."""
        return self(Example(image, None, (image.shape[0], image.shape[1])), rng, out).image


def make_transform(
    recipe: str,
    resolution: tuple[int, int],
    *,
    crop_area: tuple[float, float] = (0.05, 1.0),
    flip: bool = True,
    augment: Augment = Augment(),  # noqa: B008 (frozen)
    target: Target | None = None,
    short_side: int = 0,
) -> Transform:
    """Makes the preprocessing of one phase.

    Args:
      recipe: a key of RECIPES.
      resolution: (h, w) of the result, pixels.
      crop_area: least and largest share of the image that an Inception crop keeps, in (0, 1]; `pretrain` only.
      flip: False where a mirror image is another class (digits, text).
      augment: strengths of the augmentations that follow the recipe.
      target: the kind of target of the data; None for images alone.
      short_side: pixels that the shorter sides of the images were reduced to; 0 for images as distributed.

    Raises:
      UserError: an unknown recipe, a resolution that is not two positive integers, an impossible crop_area, data with boxes
        and a step that does not carry them, or more pixels than the images were left with.
    """
    check_recipe(recipe)
    size = tuple(resolution)
    if len(size) != 2 or not all(isinstance(x, int | np.integer) and x > 0 for x in size):
        raise UserError(f"resolution must be (height, width), two positive integers, found {resolution!r}")
    area = tuple(float(x) for x in crop_area)
    if len(area) != 2 or not 0 < area[0] <= area[1] <= 1:
        raise UserError(f"crop_area must be (least, largest) share with 0 < least <= largest <= 1, found {crop_area!r}")
    steps = (*RECIPES[recipe].steps, *augment.steps())
    if isinstance(target, Boxes) and (lost := [step for step in steps if not step.carries_boxes]):
        raise UserError(
            f"recipe {recipe}: the data has boxes, which {', '.join(map(str, lost))} cannot carry along; use steps that can, or "
            "switch them off (data.randaugment=0,0, data.random_erasing=0)"
        )
    shape = (int(size[0]), int(size[1]))
    made = Transform(resolution=shape, crop_area=(area[0], area[1]), flip=bool(flip), recipe=recipe, steps=steps)
    wanted = max(max(step.pixels(made)) for step in steps)
    if 0 < short_side < wanted:
        raise UserError(
            f"recipe {recipe} at {shape[0]}x{shape[1]} makes images of {wanted} pixels, but these were packed with a shorter "
            f"side of {short_side}; pack them again with --short-side={wanted} or more, or lower the resolution"
        )
    return made


def check_recipe(recipe: str, key: str = "preprocessing recipe") -> None:
    """Raises UserError for a name that is not in RECIPES."""
    if recipe not in RECIPES:
        near = difflib.get_close_matches(str(recipe), RECIPES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{key} must be one of {', '.join(RECIPES)}, found {recipe!r}{hint}")


def describe_transform(transform: Transform) -> dict[str, Any]:
    """The facts that a reader of a checkpoint needs to feed the model, as JSON can hold them.

    Args:
      transform: from `make_transform`.

    Returns:
      recipe, resolution, resized_to ([h, w] or None), crop, flip, how pixels are interpolated, and the value ranges
      before (uint8) and after the device's normalisation.
    """
    description = {
        "recipe": transform.recipe,
        "resolution": list(transform.resolution),
        **{"resized_to": None, "crop": "none", "crop_area": None, "flip": False},
        **{"kernel": "bilinear", "keep_aspect": False, "antialias": False},
        "corner_rule": "half-pixel centers",
        "channels": "RGB",
        "value_range": [0, 255],
        "normalized_range": [-1.0, 1.0],
        "source": RECIPES[transform.recipe].source,
    }
    for step in transform.steps:
        description |= step.describe(transform)
    return description
