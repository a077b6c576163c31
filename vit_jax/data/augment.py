"""Augmentations beyond crop and flip, on a decoded image of the model's resolution: RandAugment, colour jitter, erasing.

Mixup and CutMix mix examples of a batch and run on the device: see `train.mixing`. Called by: data.preprocess.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import PIL.Image
from PIL import ImageEnhance, ImageOps

from vit_jax.data.ops import Image
from vit_jax.types import UserError

FILL = (128, 128, 128)  # of what a rotation, shear, translation or cutout uncovers
MAX_MAGNITUDE = 30
Op = Callable[[PIL.Image.Image, float, np.random.Generator], PIL.Image.Image]


def _signed(value: float, rng: np.random.Generator) -> float:
    return -value if rng.random() < 0.5 else value


def _affine(image: PIL.Image.Image, a: float, b: float, c: float, d: float, e: float, f: float) -> PIL.Image.Image:
    """Output pixel (x, y) is input pixel (a x + b y + c, d x + e y + f); nearest neighbour."""
    return image.transform(
        image.size, PIL.Image.Transform.AFFINE, (a, b, c, d, e, f), PIL.Image.Resampling.NEAREST, fillcolor=FILL
    )


def _enhance(kind: type) -> Op:
    return lambda image, level, rng: kind(image).enhance(1.8 * level + 0.1)


def _posterize(image: PIL.Image.Image, bits: int) -> PIL.Image.Image:
    """Keeps the high bits; 0 of them, which Pillow refuses, leave black."""
    return PIL.Image.fromarray(np.asarray(image) & np.uint8(0xFF << (8 - bits) & 0xFF))


def _solarize_add(image: PIL.Image.Image, level: float, rng: np.random.Generator) -> PIL.Image.Image:
    """Brightens what is darker than 128."""
    pixels = np.asarray(image)
    brighter = np.clip(pixels.astype(np.int16) + int(110 * level), 0, 255).astype(np.uint8)
    return PIL.Image.fromarray(np.where(pixels < 128, brighter, pixels))


def _cutout(image: PIL.Image.Image, level: float, rng: np.random.Generator) -> PIL.Image.Image:
    """A square of half side 40 x level around a random point, cut off at the border."""
    half, (w, h) = int(40 * level), image.size
    x, y = int(rng.integers(w)), int(rng.integers(h))
    pixels = np.array(image)
    pixels[max(y - half, 0) : y + half, max(x - half, 0) : x + half] = FILL
    return PIL.Image.fromarray(pixels)


# Level 1 is magnitude 10. Constants: big_vision's RandAugment, with which AugReg's models were trained; so magnitude 0 is
# not the identity (posterize to 0 bits, solarize from 0).
OPS: dict[str, Op] = {
    "AutoContrast": lambda image, level, rng: ImageOps.autocontrast(image),
    "Equalize": lambda image, level, rng: ImageOps.equalize(image),
    "Invert": lambda image, level, rng: ImageOps.invert(image),
    "Rotate": lambda image, level, rng: image.rotate(
        _signed(30 * level, rng), PIL.Image.Resampling.NEAREST, fillcolor=FILL
    ),
    "Posterize": lambda image, level, rng: _posterize(image, min(int(4 * level), 8)),
    "Solarize": lambda image, level, rng: ImageOps.solarize(image, min(int(256 * level), 256)),
    "Color": _enhance(ImageEnhance.Color),
    "Contrast": _enhance(ImageEnhance.Contrast),
    "Brightness": _enhance(ImageEnhance.Brightness),
    "Sharpness": _enhance(ImageEnhance.Sharpness),
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

    Source: arXiv 1909.13719.
    """
    picture, names = PIL.Image.fromarray(image), list(OPS)
    for _ in range(layers):
        picture = OPS[names[int(rng.integers(len(names)))]](picture, magnitude / 10, rng)
    return np.asarray(picture)


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


def check_strengths(randaugment: tuple[int, int], jitter: float, erasing: float) -> None:
    """Raises UserError for strengths out of range."""
    layers, magnitude = randaugment
    errors = []
    if layers < 0 or not 0 <= magnitude <= MAX_MAGNITUDE:
        errors.append(f"data.randaugment is {randaugment}; expected (layers, magnitude of 0 to {MAX_MAGNITUDE})")
    if not 0 <= jitter <= 1:
        errors.append(f"data.color_jitter is {jitter}; expected 0 to 1")
    if not 0 <= erasing <= 1:
        errors.append(f"data.random_erasing is {erasing}; expected a probability")
    if errors:
        raise UserError("\n".join(errors))
