"""Measures, on your own photographs, how well `vit_jax dedup` finds altered copies, and how often it errs.

    python -m vit_jax.bench.duplicates --images=FOLDER

FOLDER holds photographs that all show different things. Each is used whole and as 3 x 3 tiles: every altered copy of an image is
a pair to find; every pair of tiles or wholes from different photographs is a pair to leave alone.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import PIL.Image

from vit_jax.data.dedup.duplicates import CORRELATION, RADIUS, correlation, find_candidates
from vit_jax.data.dedup.hashing import HASHES, hash_image, thumbnail
from vit_jax.data.image.decode import Image, decode
from vit_jax.data.image.encoded import CorruptImage
from vit_jax.process import reports_user_errors
from vit_jax.types import UserError


def _reencode(image: Image, quality: int) -> Image:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return decode(buffer.getvalue())


def _crop(image: Image, area: float) -> Image:
    """The top left corner with this share of the area, which is the hardest crop to find."""
    h, w = (round(side * area**0.5) for side in image.shape[:2])
    return image[:h, :w]


def _resize(image: Image, side: int) -> Image:
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


ALTERED: dict[str, Callable[[Image], Image]] = {
    "JPEG of quality 30": lambda image: _reencode(image, 30),
    "resized to 64 x 64": lambda image: _resize(image, 64),
    "resized to 32 x 32": lambda image: _resize(image, 32),
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "1.4 times as bright": lambda image: np.clip(image * 1.4, 0, 255).astype(np.uint8),
    "0.6 times as bright": lambda image: (image * 0.6).astype(np.uint8),
    "gray": lambda image: np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2),
    "95% of the area": lambda image: _crop(image, 0.95),
    "90% of the area": lambda image: _crop(image, 0.9),
    "80% of the area": lambda image: _crop(image, 0.8),
    "50% of the area": lambda image: _crop(image, 0.5),
}


def read_images(folder: str) -> tuple[list[Image], np.ndarray]:
    """Reads photographs and cuts their tiles; also returns the number of each image's photograph."""
    photographs = []
    for file in sorted(Path(folder).expanduser().rglob("*")):
        if file.suffix.lower() in (".jpg", ".jpeg", ".png"):
            try:
                photographs.append(decode(file.read_bytes()))
            except CorruptImage as error:
                raise UserError(f"{file} does not decode: {error}; take it out of --images={folder}") from error
    if len(photographs) < 2:
        raise UserError(f"--images={folder}: expected photographs (*.jpg, *.png), found {len(photographs)}")
    images, owners = [], []
    for number, image in enumerate(photographs):
        h, w = image.shape[0] // 3, image.shape[1] // 3
        tiles = [
            np.ascontiguousarray(image[r * h : (r + 1) * h, c * w : (c + 1) * w]) for r in range(3) for c in range(3)
        ]
        images += [image, *tiles]
        owners += [number] * 10
    return images, np.array(owners)


def measure(images: list[Image], owners: np.ndarray, radius: int, least: float) -> tuple[dict[str, float], int, int]:
    """(share found of each kind of copy, pairs of different photographs taken for copies, all pairs of different photographs)."""
    hashes = np.array([hash_image(image) for image in images], HASHES)
    small = [thumbnail(image) for image in images]
    shares = {}
    for name, alter in ALTERED.items():
        copies = [alter(image) for image in images]
        pairs = find_candidates(hashes, np.array([hash_image(copy) for copy in copies], HASHES), radius)
        pairs = pairs[pairs["train"] == pairs["test"]]
        good = [correlation(small[i], thumbnail(copies[i])) >= least for i in pairs["train"].tolist()]
        shares[name] = sum(good) / len(images)
    pairs = find_candidates(hashes, hashes, radius)
    pairs = pairs[(pairs["train"] < pairs["test"]) & (owners[pairs["train"]] != owners[pairs["test"]])]
    wrong = sum(correlation(small[i], small[j]) >= least for i, j in zip(pairs["train"], pairs["test"], strict=True))
    different = (len(owners) ** 2 - int((owners[:, None] == owners).sum())) // 2
    return shares, wrong, different


@reports_user_errors
def main() -> int:
    """Runs the measurement; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder of photographs")
    parser.add_argument(
        "--radius", type=int, default=RADIUS, help="bits that hashes may differ in (default %(default)s)"
    )
    parser.add_argument("--correlation", type=float, default=CORRELATION, help="of the pixels (default %(default)s)")
    flags = parser.parse_args()
    images, owners = read_images(flags.images)
    shares, wrong, different = measure(images, owners, flags.radius, flags.correlation)
    print(f"{len(images)} images, radius {flags.radius}, correlation {flags.correlation}")
    for name, share in shares.items():
        print(f"{name:<20} {share:6.1%} found")
    print(f"different images     {wrong} of {different:,} pairs taken for copies")
    return 0


if __name__ == "__main__":
    sys.exit(main())
