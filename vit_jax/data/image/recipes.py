"""The recipes that turn a decoded image into a model's input (arXiv 2010.11929, appendix B.1 and section 4.1), and their
description for checkpoints."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from vit_jax.data.image import augment
from vit_jax.data.image.crops import central_crop, inception_crop, random_crop, random_flip, resize, resize_small
from vit_jax.data.image.decode import Image
from vit_jax.types import UserError

RecipeName = Literal[
    "pretrain", "finetune", "finetune_small", "resize_flip", "eval", "eval_crop", "fewshot", "objectnet"
]


class Recipe(NamedTuple):
    """One row of RECIPES.

    Args:
      resize: the image is first resized to `resolution` times this; None leaves it as it is.
      crop: how `resolution` is cut out of that.
      may_flip: mirrored one time in two, unless the caller says flip=False.
      source: whose recipe it is.
      keep_aspect: the shorter side gets that size and the other follows; else both do, and the image is squashed.
    """

    resize: float | None
    crop: Literal["inception", "random", "central", "none"]
    may_flip: bool
    source: str
    keep_aspect: bool = False

    @property
    def is_random(self) -> bool:
        """Whether it draws anything: such a recipe is for training."""
        return self.may_flip or self.crop in ("inception", "random")


RECIPES: dict[str, Recipe] = {
    "pretrain": Recipe(None, "inception", True, "the release's pre-training and fine-tuning"),
    "finetune": Recipe(7 / 6, "random", True, "arXiv 1912.11370; VTAB: 448 -> 384"),
    "finetune_small": Recipe(7 / 6, "random", True, "big_vision transfer: shorter side 448 -> 384", keep_aspect=True),
    "resize_flip": Recipe(1.0, "none", True, "VTAB tasks whose label a crop would change"),
    "eval": Recipe(1.0, "none", False, "the release"),
    "eval_crop": Recipe(8 / 7, "central", False, "big_vision: shorter side 256 -> 224", keep_aspect=True),
    "fewshot": Recipe(8 / 7, "central", False, "big_vision few-shot: 256 -> 224"),
    "objectnet": Recipe(16 / 15, "central", False, "arXiv 1912.11370: shorter side 512 -> 480", keep_aspect=True),
}


@dataclass(frozen=True)
class Transform:
    """A recipe at a resolution: call it with (image, rng). Made by `make_transform`; picklable.

    Args:
      recipe: a key of RECIPES.
      resolution: (h, w) of the result.
      crop_area: range of the Inception crop's share of the image's area.
      flip: whether recipes that may flip do.
      randaugment, color_jitter, random_erasing: what follows, see `data.image.augment`.
    """

    recipe: str
    resolution: tuple[int, int]
    crop_area: tuple[float, float]
    flip: bool
    randaugment: tuple[int, int] = (0, 0)
    color_jitter: float = 0.0
    random_erasing: float = 0.0

    @property
    def resized(self) -> tuple[int, int] | None:
        """(h, w) that the image is resized to before the crop (covers, where the aspect is kept), or None."""
        factor = RECIPES[self.recipe].resize
        return None if factor is None else (round(self.resolution[0] * factor), round(self.resolution[1] * factor))

    @property
    def crops_first(self) -> bool:
        """Whether a crop comes first, so that the image may be a `TopOfJpeg`."""
        return RECIPES[self.recipe].crop == "inception"

    def __call__(self, image: Any, rng: np.random.Generator, out: Image | None = None) -> Image:
        """uint8 (h, w, 3) -> uint8 (resolution[0], resolution[1], 3); all randomness comes from `rng`.

        The result lies in `out`, of that shape, if the last steps can write there, and else in a new array.
        """
        recipe = RECIPES[self.recipe]
        if self.resized is not None:
            image = resize_small(image, self.resized) if recipe.keep_aspect else resize(image, self.resized)
        if recipe.crop == "inception":
            image = inception_crop(image, rng, self.resolution, self.crop_area, out=out)
        elif recipe.crop == "random":
            image = random_crop(image, rng, self.resolution)
        elif recipe.crop == "central":
            image = central_crop(image, self.resolution)
        if recipe.may_flip and self.flip:
            image = random_flip(image, rng, out)
        if self.randaugment[0]:
            image = augment.rand_augment(np.ascontiguousarray(image), rng, *self.randaugment)
        if self.color_jitter:
            image = augment.color_jitter(np.ascontiguousarray(image), rng, self.color_jitter)
        if self.random_erasing:
            image = augment.random_erasing(image, rng, self.random_erasing)
        return np.ascontiguousarray(image)


def make_transform(
    recipe: RecipeName,
    resolution: tuple[int, int],
    *,
    crop_area: tuple[float, float] = (0.05, 1.0),
    flip: bool = True,
    randaugment: tuple[int, int] = (0, 0),
    color_jitter: float = 0.0,
    random_erasing: float = 0.0,
) -> Transform:
    """Makes the preprocessing of one phase.

    Args:
      recipe: `pretrain`, `finetune`, `resize_flip`, `eval` or `fewshot`; see RECIPES.
      resolution: (h, w) of the result, pixels.
      crop_area: least and largest share of the image that an Inception crop keeps, in (0, 1]; `pretrain` only.
      flip: False where a mirror image is another class (digits, text); `pretrain`, `finetune` and
        `resize_flip` only.
      randaugment: (layers, magnitude); (0, 0) for none.
      color_jitter: strength, 0 to 1.
      random_erasing: probability.

    Returns:
      A picklable callable (image uint8 (h, w, 3), rng) -> uint8 (resolution[0], resolution[1], 3).

    Raises:
      UserError: an unknown recipe, a resolution that is not two positive integers, or an impossible crop_area.
    """
    if recipe not in RECIPES:
        near = difflib.get_close_matches(str(recipe), RECIPES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"preprocessing recipe must be one of {', '.join(RECIPES)}, found {recipe!r}{hint}")
    size = tuple(resolution)
    if len(size) != 2 or not all(isinstance(x, int | np.integer) and x > 0 for x in size):
        raise UserError(f"resolution must be (height, width), two positive integers, found {resolution!r}")
    area = tuple(float(x) for x in crop_area)
    if len(area) != 2 or not 0 < area[0] <= area[1] <= 1:
        raise UserError(f"crop_area must be (least, largest) share with 0 < least <= largest <= 1, found {crop_area!r}")
    augment.check_strengths(randaugment, color_jitter, random_erasing)
    shape, layers = (int(size[0]), int(size[1])), (int(randaugment[0]), int(randaugment[1]))
    return Transform(recipe, shape, (area[0], area[1]), bool(flip), layers, color_jitter, random_erasing)


def describe_transform(transform: Transform) -> dict[str, Any]:
    """What a reader of a checkpoint must know to feed the model, as JSON can hold it.

    Args:
      transform: from `make_transform`.

    Returns:
      recipe, resolution, resized_to ([h, w] or None), crop, flip, how pixels are interpolated, and the value ranges
      before (uint8) and after the device's normalisation.
    """
    recipe = RECIPES[transform.recipe]
    return {
        "recipe": transform.recipe,
        "resolution": list(transform.resolution),
        "resized_to": None if transform.resized is None else list(transform.resized),
        "crop": recipe.crop,
        "crop_area": list(transform.crop_area) if recipe.crop == "inception" else None,
        "flip": recipe.may_flip and transform.flip,
        "kernel": "area" if recipe.keep_aspect else "bilinear",
        "keep_aspect": recipe.keep_aspect,
        "antialias": recipe.keep_aspect,
        "corner_rule": "half-pixel centers",
        "channels": "RGB",
        "value_range": [0, 255],
        "normalized_range": [-1.0, 1.0],
        "source": recipe.source,
    }
