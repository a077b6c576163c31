"""Augmentations beyond crop and flip, on a decoded image of the model's resolution: RandAugment, colour jitter, erasing.

Mixup and CutMix mix examples of a batch and run on the device: see `train.mixing`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import PIL.Image
from PIL import ImageEnhance, ImageOps

from vit_jax.data.image.decode import Image
from vit_jax.data.image.steps import Pixels, Step
from vit_jax.data.image.timm_augment import parse_timm, timm_augment
from vit_jax.types import UserError

FILL = (128, 128, 128)  # colour of pixels that a rotation, shear, translation or cutout uncovers
MAX_MAGNITUDE = 30
GRAY_WEIGHTS = np.array([0.2989, 0.5870, 0.1140], np.float32)  # of red, green and blue, as TensorFlow has them
# An operation maps (image, level, generator) to a new image; level 1 is magnitude 10.
Op = Callable[[Image, float, np.random.Generator], Image]


def _signed(value: float, rng: np.random.Generator) -> float:
    return -value if rng.random() < 0.5 else value


def _affine(image: Image, a: float, b: float, c: float, d: float, e: float, f: float) -> Image:
    """Output pixel (x, y) is input pixel (a x + b y + c, d x + e y + f), counted by index; nearest neighbour, halves away
    from zero. Source: TensorFlow's ImageProjectiveTransform."""
    h, w = image.shape[:2]
    x, y = np.arange(w, dtype=np.float32)[None, :], np.arange(h, dtype=np.float32)[:, None]

    def places(scale_x: float, scale_y: float, offset: float) -> np.ndarray:
        exact = np.float32(scale_x) * x + np.float32(scale_y) * y + np.float32(offset)
        return np.trunc(exact + np.copysign(np.float32(0.5), exact))

    across, down = places(a, b, c), places(d, e, f)
    return cv2.remap(  # type: ignore[return-value]
        image, across, down, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=FILL
    )


def _rotate(image: Image, degrees: float) -> Image:
    """Around the middle of the picture."""
    (h, w), angle = image.shape[:2], math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    across = ((w - 1) - (cos * (w - 1) - sin * (h - 1))) / 2
    down = ((h - 1) - (sin * (w - 1) + cos * (h - 1))) / 2
    return _affine(image, cos, -sin, across, sin, cos, down)


def _look_up(image: Image, table: np.ndarray) -> Image:
    """Replaces each value by its entry in a table of 256."""
    return cv2.LUT(image, table.astype(np.uint8))  # type: ignore[return-value]


def _blend(plain: np.ndarray | float, image: Image, factor: float) -> Image:
    """plain + factor (image - plain), clipped and truncated."""
    start = np.asarray(plain, np.float32)
    return np.clip(start + np.float32(factor) * (image - start), 0, 255).astype(np.uint8)


def _gray(image: Image) -> np.ndarray:
    """uint8 (h, w, 1): truncated as TensorFlow's `rgb_to_grayscale`, whose scale for the way back to bytes is 255.5."""
    share = cv2.transform(image.astype(np.float32) * np.float32(1 / 255), GRAY_WEIGHTS[None])  # h w
    return (share * np.float32(255.5)).astype(np.uint8)[..., None]


def _contrast(image: Image, factor: float) -> Image:
    """Blends with a gray that depends on the picture's size alone, 196 at 224 x 224: the mean was meant, and the histogram's
    counts are averaged in its place."""
    return _blend(min(image.shape[0] * image.shape[1] // 256, 255), image, factor)


def _sharpness(image: Image, factor: float) -> Image:
    """Blends with the smoothed picture, truncated, whose border is that of the original."""
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
    smooth = image.copy()
    inner = cv2.filter2D(image.astype(np.float32), -1, kernel)[1:-1, 1:-1]
    smooth[1:-1, 1:-1] = np.clip(inner, 0, 255).astype(np.uint8)
    return _blend(smooth, image, factor)


def _autocontrast(image: Image, level: float, rng: np.random.Generator) -> Image:
    """Stretches each channel to 0 .. 255, truncated."""
    tables = []
    for channel in cv2.split(image):
        low, high = (np.float32(x) for x in cv2.minMaxLoc(channel)[:2])
        scale = np.float32(255) / (high - low) if high > low else np.float32(1)
        offset = -low * scale if high > low else np.float32(0)
        tables.append(np.clip(np.arange(256, dtype=np.float32) * scale + offset, 0, 255))
    return _look_up(image, np.stack(tables, axis=-1)[None])


def _posterize(image: Image, level: float, rng: np.random.Generator) -> Image:
    """Keeps the high bits, one at least: TensorFlow shifts a byte by 7 at most."""
    bits = min(max(int(4 * level), 1), 8)
    return image & np.uint8(0xFF << (8 - bits) & 0xFF)


def _solarize(image: Image, level: float, rng: np.random.Generator) -> Image:
    """Inverts the values at or above the threshold. The threshold is a byte and wraps: at magnitude 10 it is 0."""
    values = np.arange(256)
    return _look_up(image, np.where(values < int(256 * level) % 256, values, 255 - values))


def _solarize_add(image: Image, level: float, rng: np.random.Generator) -> Image:
    """Brightens the values below 128."""
    values = np.arange(256)
    return _look_up(image, np.where(values < 128, np.minimum(values + int(110 * level), 255), values))


def _cutout(image: Image, level: float, rng: np.random.Generator) -> Image:
    """A square of half side 40 x level around a random point, cut off at the border."""
    half, (h, w) = int(40 * level), image.shape[:2]
    x, y = int(rng.integers(w)), int(rng.integers(h))
    pixels = image.copy()
    pixels[max(y - half, 0) : y + half, max(x - half, 0) : x + half] = FILL
    return pixels


def _equalize(image: Image, level: float, rng: np.random.Generator) -> Image:
    return np.asarray(ImageOps.equalize(PIL.Image.fromarray(image)))


def _factor(level: float) -> float:
    return 1.8 * level + 0.1


# The operations with which AugReg's models were trained, in big_vision's constants and with its quirks, which are named where
# they are: so magnitude 0 is not the identity (posterize to one bit, solarize from 0).
OPS: dict[str, Op] = {
    "AutoContrast": _autocontrast,
    "Equalize": _equalize,
    "Invert": lambda image, level, rng: 255 - image,
    "Rotate": lambda image, level, rng: _rotate(image, _signed(30 * level, rng)),
    "Posterize": _posterize,
    "Solarize": _solarize,
    "Color": lambda image, level, rng: _blend(_gray(image), image, _factor(level)),
    "Contrast": lambda image, level, rng: _contrast(image, _factor(level)),
    "Brightness": lambda image, level, rng: _blend(0, image, _factor(level)),
    "Sharpness": lambda image, level, rng: _sharpness(image, _factor(level)),
    "ShearX": lambda image, level, rng: _affine(image, 1, _signed(0.3 * level, rng), 0, 0, 1, 0),
    "ShearY": lambda image, level, rng: _affine(image, 1, 0, 0, _signed(0.3 * level, rng), 1, 0),
    "TranslateX": lambda image, level, rng: _affine(image, 1, 0, _signed(100 * level, rng), 0, 1, 0),
    "TranslateY": lambda image, level, rng: _affine(image, 1, 0, 0, 0, 1, _signed(100 * level, rng)),
    "Cutout": _cutout,
    "SolarizeAdd": _solarize_add,
}


def rand_augment(image: Image, rng: np.random.Generator, layers: int, magnitude: int) -> Image:
    """Applies `layers` operations, each drawn from the sixteen of `OPS`, at one strength.

    Args:
      image: uint8 (h, w, 3).
      rng: where the randomness comes from.
      layers: operations applied one after another.
      magnitude: 0 to 30; 10 is the scale's unit.

    Source: arXiv 1909.13719, as AugReg (arXiv 2106.10270) used it.
    """
    names = list(OPS)
    for _ in range(layers):
        image = OPS[names[int(rng.integers(len(names)))]](image, magnitude / 10, rng)
    return image


def color_jitter(image: Image, rng: np.random.Generator, strength: float) -> Image:
    """Scales brightness, contrast and saturation, in random order, each by a factor uniform in 1 +- `strength`."""
    picture = PIL.Image.fromarray(image)
    kinds = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
    for i in rng.permutation(len(kinds)):
        picture = kinds[i](picture).enhance(float(rng.uniform(1 - strength, 1 + strength)))
    return np.asarray(picture)


def random_erasing(image: Image, rng: np.random.Generator, probability: float) -> Image:
    """With some probability replaces a rectangle by noise: 2% to a third of the area, aspect 0.3 to 1/0.3.

    Source: arXiv 1708.04896, with uniform noise per pixel.
    """
    if rng.random() >= probability:
        return image
    h, w = image.shape[:2]
    for _ in range(10):
        area, ratio = rng.uniform(0.02, 1 / 3) * h * w, np.exp(rng.uniform(np.log(0.3), np.log(1 / 0.3)))
        box_h, box_w = round(float(np.sqrt(area * ratio))), round(float(np.sqrt(area / ratio)))
        if 0 < box_h <= h and 0 < box_w <= w:
            top, left = int(rng.integers(h - box_h + 1)), int(rng.integers(w - box_w + 1))
            out = image.copy()
            out[top : top + box_h, left : left + box_w] = rng.integers(0, 256, (box_h, box_w, 3), np.uint8)
            return out
    return image


@dataclass(frozen=True, kw_only=True)
class Augment:
    """The strengths of the augmentations that follow crop and flip, 0 for off. The `data` section of a config has these keys.

    A new strength is a field, a line in `steps`, and a check if it has a range.

    Args:
      randaugment: (layers, magnitude of 0 to 30) of RandAugment, in AugReg's constants.
      auto_augment: timm's RandAugment by its name there, rand-m9-mstd0.5-inc1 in MAE, SimMIM and DeiT; "" for none.
      color_jitter: brightness, contrast and saturation change by up to this share.
      random_erasing: probability that a rectangle becomes noise.
    """

    randaugment: tuple[int, int] = (0, 0)
    auto_augment: str = ""
    color_jitter: float = 0.0
    random_erasing: float = 0.0

    def __post_init__(self) -> None:
        layers, magnitude = self.randaugment
        wrong = {
            f"randaugment is {self.randaugment}; expected (layers, magnitude of 0 to {MAX_MAGNITUDE})": (
                layers < 0 or not 0 <= magnitude <= MAX_MAGNITUDE
            ),
            f"color_jitter is {self.color_jitter}; expected 0 to 1": not 0 <= self.color_jitter <= 1,
            f"random_erasing is {self.random_erasing}; expected a probability": not 0 <= self.random_erasing <= 1,
        }
        if self.auto_augment:
            parse_timm(self.auto_augment)
        if any(wrong.values()):
            raise UserError("\n".join(f"data.{message}" for message, found in wrong.items() if found))

    def steps(self) -> tuple[Step, ...]:
        """The steps of the strengths that are not 0, in order. Erased and moved pixels would belie boxes."""
        each = (
            (self.randaugment[0], Pixels(rand_augment, self.randaugment)),
            (self.auto_augment, Pixels(timm_augment, (self.auto_augment,))),
            (self.color_jitter, Pixels(color_jitter, (self.color_jitter,), carries_boxes=True)),
            (self.random_erasing, Pixels(random_erasing, (self.random_erasing,))),
        )
        return tuple(step for strength, step in each if strength)
