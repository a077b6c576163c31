"""The steps that recipes are made of. A step maps an example to an example: geometry is drawn first and then applied to the image
and its boxes alike; pixels change the image alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vit_jax.data.image.boxes import crop_boxes, flip_boxes, place_boxes
from vit_jax.data.image.crops import (
    Box,
    Size,
    central_box,
    cut,
    flip,
    random_box,
    resize,
    resize_small,
    resize_smooth,
    sample_box,
)
from vit_jax.data.image.decode import Image

GREY = 128  # 0.004 in the model's range of [-1, 1]


class Example(NamedTuple):
    """The value that steps map to one another.

    Args:
      image: uint8 (h, w, 3), or at first a `data.image.jpeg.TopOfJpeg`.
      target: the label, of the kind that the data set has.
      size: (h, w) of the decoded image, before any step.
    """

    image: Any
    target: Any
    size: Size


@dataclass(frozen=True, kw_only=True)
class View:
    """The settings that all steps of one transform share.

    Args:
      resolution: (h, w) of the result, pixels.
      crop_area: least and largest share of the image that an Inception crop keeps.
      flip: whether steps that mirror do.
    """

    resolution: Size
    crop_area: tuple[float, float] = (0.05, 1.0)
    flip: bool = True


class Step:
    """One step; picklable, since worker processes get a copy.

    Args:
      carries_boxes: boxes are right after this step. A step that leaves it False is refused for data with boxes.
      is_random: it draws, so the recipe is for training.
      only_crops: of the image it uses the shape and one crop, so that a JPEG need not be decoded below it.
    """

    carries_boxes: bool = False
    is_random: bool = False
    only_crops: bool = False

    def __call__(self, example: Example, rng: np.random.Generator, view: View, out: Image | None = None) -> Example:
        """The next example; all randomness comes from `rng`. A step may write its image to `out`, uint8 (*resolution, 3), where
        the image that it is given may lie already."""
        raise NotImplementedError

    def pixels(self, view: View) -> Size:
        """(h, w) that it makes of an image; (0, 0) if that depends on the image."""
        return 0, 0

    def describe(self, view: View) -> dict[str, Any]:
        """Fields of `describe_transform` that this step decides."""
        return {}

    def __str__(self) -> str:
        return type(self).__name__


@dataclass(frozen=True)
class Resize(Step):
    """Resizes to `factor` times the resolution, squashed."""

    factor: float
    carries_boxes = True

    def __call__(self, example: Example, rng: np.random.Generator, view: View, out: Image | None = None) -> Example:
        """See `Step`."""
        return Example(resize(example.image, self.size(view)), example.target, example.size)

    def size(self, view: View) -> Size:
        """(h, w) of the result."""
        return round(view.resolution[0] * self.factor), round(view.resolution[1] * self.factor)

    def describe(self, view: View) -> dict[str, Any]:
        """See `Step`."""
        return {"resized_to": list(self.size(view))}

    pixels = size


class ResizeSmall(Resize):
    """Resizes so that the image covers `factor` times the resolution; the aspect is kept."""

    def __call__(self, example: Example, rng: np.random.Generator, view: View, out: Image | None = None) -> Example:
        """See `Step`."""
        return Example(resize_small(example.image, self.size(view)), example.target, example.size)

    def describe(self, view: View) -> dict[str, Any]:
        """See `Step`."""
        return {**super().describe(view), "kernel": "area", "keep_aspect": True, "antialias": True}


@dataclass(frozen=True)
class Fit(Step):
    """Resizes so that the image fits into the resolution, its aspect kept, and fills the rest, below or right, with grey: the
    zero of the model's range. With `least` below 1 it draws a smaller size, of `least` to 1 times that.

    Source: arXiv 2005.12872, section A.4: scale augmentation and padding, on a canvas of one size.
    """

    least: float = 1.0
    carries_boxes = True

    @property
    def is_random(self) -> bool:  # type: ignore[override]
        """Whether it draws a size."""
        return self.least < 1

    def __call__(self, example: Example, rng: np.random.Generator, view: View, out: Image | None = None) -> Example:
        """See `Step`."""
        image, target, size = example
        h, w = image.shape[:2]
        scale = min(view.resolution[0] / h, view.resolution[1] / w)
        scale *= rng.uniform(self.least, 1.0) if self.is_random else 1.0
        inner = tuple(
            min(max(round(side * scale), 1), most) for side, most in zip((h, w), view.resolution, strict=True)
        )
        small = resize_smooth(image, (inner[0], inner[1]))
        filled = np.full((*view.resolution, 3), GREY, np.uint8) if out is None else out
        filled[:] = GREY
        filled[: inner[0], : inner[1]] = small
        # Exactly h and w times one scale, whatever the rounding of the pixels, so that boxes are mapped back exactly.
        shape = view.resolution[0] / scale, view.resolution[1] / scale
        return Example(filled, place_boxes(target, (h, w), shape), size)

    def pixels(self, view: View) -> Size:
        """See `Step`."""
        return view.resolution

    def describe(self, view: View) -> dict[str, Any]:
        """See `Step`."""
        return {"resized_to": list(view.resolution), "keep_aspect": True, "antialias": True, "fill": GREY}


class RandomPart(Step):
    """One image in two is cut to a random part, whose sides are independent: at least three fifths of each, and of its pixels if
    the image has fewer than 384. Objects mostly cut off are kept.

    Source: DETR's RandomSizeCrop of 384 to 600 pixels after a resize of the shorter side to 400 to 600, in shares.
    """

    carries_boxes = is_random = True

    def __call__(self, example: Example, rng: np.random.Generator, view: View, out: Image | None = None) -> Example:
        """See `Step`."""
        if rng.random() >= 0.5:
            return example
        image, target, size = example
        h, w = (int(rng.integers(-(-3 * side // 5), side + 1)) for side in image.shape[:2])
        box = random_box(image, rng, (h, w))
        return Example(cut(image, box), crop_boxes(target, image.shape, box), size)

    def describe(self, view: View) -> dict[str, Any]:
        """See `Step`."""
        return {"crop": "part"}


class InceptionCrop(Step):
    """A random part of the image, resized to the resolution; see `sample_box`."""

    carries_boxes = is_random = only_crops = True

    def __call__(self, example: Example, rng: np.random.Generator, view: View, out: Image | None = None) -> Example:
        """See `Step`."""
        image, target, size = example
        box = sample_box(image.shape[0], image.shape[1], rng, view.crop_area, (3 / 4, 4 / 3))
        return Example(resize(cut(image, box), view.resolution, out), crop_boxes(target, image.shape, box), size)

    def describe(self, view: View) -> dict[str, Any]:
        """See `Step`."""
        return {"crop": "inception", "crop_area": list(view.crop_area)}

    def pixels(self, view: View) -> Size:
        """See `Step`."""
        return view.resolution


class CentralCrop(Step):
    """The middle of the image, of the resolution."""

    carries_boxes = True
    place = "central"

    def draw(self, image: Image, rng: np.random.Generator, size: Size) -> Box:
        """(top, left, height, width) of the crop."""
        return central_box(image, size)

    def __call__(self, example: Example, rng: np.random.Generator, view: View, out: Image | None = None) -> Example:
        """See `Step`."""
        image, target, size = example
        box = self.draw(image, rng, view.resolution)
        return Example(cut(image, box), crop_boxes(target, image.shape, box), size)

    def describe(self, view: View) -> dict[str, Any]:
        """See `Step`."""
        return {"crop": self.place}


class RandomCrop(CentralCrop):
    """A part of the image, of the resolution, every position equally likely."""

    is_random = True
    place = "random"

    def draw(self, image: Image, rng: np.random.Generator, size: Size) -> Box:
        """(top, left, height, width) of the crop."""
        return random_box(image, rng, size)


class Flip(Step):
    """Mirrors one image in two, left and right, unless the view says no."""

    carries_boxes = is_random = True

    def __call__(self, example: Example, rng: np.random.Generator, view: View, out: Image | None = None) -> Example:
        """See `Step`."""
        if not view.flip or rng.random() >= 0.5:
            return example
        fits = out is not None and out.shape == example.image.shape
        return Example(flip(example.image, out if fits else None), flip_boxes(example.target), example.size)

    def describe(self, view: View) -> dict[str, Any]:
        """See `Step`."""
        return {"flip": view.flip}


@dataclass(frozen=True)
class Pixels(Step):
    """Applies `function(image, rng, *args) -> image`, which keeps the shape, to the image alone.

    Args:
      function: of a module, so that it can be pickled.
      args: what follows the generator.
      carries_boxes: no object moves or vanishes.
    """

    function: Callable[..., Image]
    args: tuple[Any, ...]
    carries_boxes: bool = False
    is_random = True

    def __str__(self) -> str:
        return self.function.__name__

    def __call__(self, example: Example, rng: np.random.Generator, view: View, out: Image | None = None) -> Example:
        """See `Step`."""
        image = self.function(np.ascontiguousarray(example.image), rng, *self.args)
        return Example(image, example.target, example.size)
