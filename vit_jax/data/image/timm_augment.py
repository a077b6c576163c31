"""RandAugment as timm has it, with which MAE, SimMIM and DeiT train: the magnitude varies, and each operation is left out half of
the time. Operations grow stronger with the magnitude (`inc1`)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
from PIL import ImageEnhance, ImageOps

from vit_jax.data.image.decode import Image
from vit_jax.types import UserError

FILL = (124, 116, 104)  # ImageNet's mean, of pixels that a geometric operation uncovers
SPEC = re.compile(r"rand-m(\d+)(?:-n(\d+))?(?:-p(\d*\.?\d+))?(?:-mstd(\d*\.?\d+))?(?:-n(\d+))?-inc1")
Picture = Any  # PIL.Image.Image


def _moved(picture: Picture, a: float, b: float, c: float, d: float, e: float, f: float) -> Picture:
    matrix = (a, b, c, d, e, f)
    kind, kernel = PIL.Image.Transform.AFFINE, PIL.Image.Resampling.BICUBIC
    return picture.transform(picture.size, kind, matrix, resample=kernel, fillcolor=FILL)


def _solarize_add(picture: Picture, add: int) -> Picture:
    return picture.point([min(255, i + add) if i < 128 else i for i in range(256)] * 3)


def _enhanced(kind: Any) -> Callable[[Picture, float, float], Picture]:
    return lambda picture, level, sign: kind(picture).enhance(max(0.1, 1 + sign * 0.9 * level))


# (picture, level in [0, 1], sign) -> picture. At level 1 timm keeps 0 bits, which Pillow refuses today: ours keeps 1.
OPS: dict[str, Callable[[Picture, float, float], Picture]] = {
    "AutoContrast": lambda picture, level, sign: ImageOps.autocontrast(picture),
    "Equalize": lambda picture, level, sign: ImageOps.equalize(picture),
    "Invert": lambda picture, level, sign: ImageOps.invert(picture),
    "Rotate": lambda picture, level, sign: picture.rotate(
        sign * 30 * level, resample=PIL.Image.Resampling.BICUBIC, fillcolor=FILL
    ),
    "Posterize": lambda picture, level, sign: ImageOps.posterize(picture, max(1, 4 - int(4 * level))),
    "Solarize": lambda picture, level, sign: ImageOps.solarize(picture, 256 - min(256, int(256 * level))),
    "SolarizeAdd": lambda picture, level, sign: _solarize_add(picture, min(128, int(110 * level))),
    "Color": _enhanced(ImageEnhance.Color),
    "Contrast": _enhanced(ImageEnhance.Contrast),
    "Brightness": _enhanced(ImageEnhance.Brightness),
    "Sharpness": _enhanced(ImageEnhance.Sharpness),
    "ShearX": lambda picture, level, sign: _moved(picture, 1, sign * 0.3 * level, 0, 0, 1, 0),
    "ShearY": lambda picture, level, sign: _moved(picture, 1, 0, 0, sign * 0.3 * level, 1, 0),
    "TranslateX": lambda picture, level, sign: _moved(picture, 1, 0, sign * 0.45 * level * picture.size[0], 0, 1, 0),
    "TranslateY": lambda picture, level, sign: _moved(picture, 1, 0, 0, 0, 1, sign * 0.45 * level * picture.size[1]),
}


def parse_timm(text: str) -> tuple[float, float, int, float]:
    """(magnitude, its deviation, operations, probability of each) of `rand-m9-mstd0.5-inc1`.

    Raises:
      UserError: another policy, or a magnitude above 10.
    """
    match = SPEC.fullmatch(text)
    if not match or int(match[1]) > 10 or (match[3] and float(match[3]) > 1):
        raise UserError(
            f"data.auto_augment is {text!r}; expected rand-m9-mstd0.5-inc1 or the like: m0 to m10, and perhaps -n2 operations "
            "with probability -p0.5; data.randaugment is AugReg's"
        )
    magnitude, deviation = float(match[1]), float(match[4] or 0)
    return magnitude, deviation, int(match[2] or match[5] or 2), float(match[3] or 0.5)


def timm_augment(image: Image, rng: np.random.Generator, text: str) -> Image:
    """Applies the operations of a policy, each drawn from the fifteen of OPS.

    Args:
      image: uint8 (h, w, 3).
      rng: where the randomness comes from.
      text: see `parse_timm`.

    Source: timm's `rand_augment_transform`, with bicubic interpolation.
    """
    magnitude, deviation, layers, probability = parse_timm(text)
    picture, names = PIL.Image.fromarray(image), list(OPS)
    for _ in range(layers):
        name, applied = names[int(rng.integers(len(names)))], rng.random() < probability
        level = float(np.clip(rng.normal(magnitude, deviation), 0, 10)) / 10
        sign = -1.0 if rng.random() < 0.5 else 1.0
        if applied:
            picture = OPS[name](picture, level, sign)
    return np.asarray(picture)
