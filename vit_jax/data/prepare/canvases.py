"""TFDS builder of small real images on canvases with exact boxes, in the layout of TFDS's COCO: detection without a download.

Each canvas holds up to six of scikit-learn's handwritten digits, or of Fashion-MNIST's items, cut to their ink and scaled. A
canvas of a split holds images of that split alone, and depends on its number and the version alone. `digits_single` has one digit
on a quarter of a canvas, with its class: to pre-train a detector's encoder as a classifier of the same items.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import tensorflow_datasets as tfds

from vit_jax.data.prepare import idx
from vit_jax.data.prepare.digits import split_digits
from vit_jax.types import UserError

SIDE = 128  # pixels of a canvas
GREY = 127  # of an empty canvas: the zero of the model's range, so that an empty patch begins as its position alone
MOST = 6  # objects of a canvas
EMPTY = 0.05  # share of canvases without an object
SIZES = (16, 56)  # pixels of the longer side of an object
# A place is drawn again, up to 20 times, if the object overlaps an earlier one by more than a tenth; then it is left out.
TRIES, MAX_OVERLAP = 20, 0.1
NUMBER = {"train": 48_000, "test": 1_000}
SINGLE = {"train": 60_000, "test": 1_000}
FASHION = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot")
DIGITS = tuple(map(str, range(10)))


class Canvas(NamedTuple):
    """One image: uint8 (side, side), its boxes int (k, 4) of left, top, right, bottom in pixels, and classes int (k,)."""

    image: np.ndarray
    box: np.ndarray
    kind: np.ndarray


def draw_canvas(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator, *, single: bool = False) -> Canvas:
    """Composes one canvas.

    Args:
      images: uint8 (n, h, w), 0 where there is no ink.
      labels: int (n,).
      rng: all randomness.
      single: whether to draw one object on a quarter of a canvas.
    """
    side = SIDE // 2 if single else SIDE
    canvas, boxes, kinds = np.full((side, side), GREY, np.uint8), list[tuple[int, int, int, int]](), list[int]()
    count = 1 if single else 0 if rng.random() < EMPTY else int(rng.integers(1, MOST + 1))
    for index in rng.integers(0, len(images), count):
        item = scale(crop_to_ink(images[index]), int(rng.integers(SIZES[0], SIZES[1] + 1)))
        h, w = item.shape
        for _ in range(TRIES):
            top, left = int(rng.integers(side - h + 1)), int(rng.integers(side - w + 1))
            box = left, top, left + w, top + h
            if all(overlap(box, other) <= MAX_OVERLAP for other in boxes):
                part = canvas[top : top + h, left : left + w]
                np.maximum(part, GREY + (item + np.uint16(1)) // 2, out=part, casting="unsafe")
                boxes.append(box)
                kinds.append(int(labels[index]))
                break
    return Canvas(canvas, np.array(boxes, np.int64).reshape(-1, 4), np.array(kinds, np.int64))


def crop_to_ink(image: np.ndarray) -> np.ndarray:
    """The smallest part of an image that holds all its ink."""
    rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def scale(image: np.ndarray, longer: int) -> np.ndarray:
    """Resizes an image so that its longer side has `longer` pixels, and cuts it to its ink again: a box is exact to a pixel."""
    h, w = (max(round(side * longer / max(image.shape)), 1) for side in image.shape)
    return crop_to_ink(np.asarray(cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)))


def overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def read_digits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{split: (images, labels)} of scikit-learn's digits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    parts = zip(("train", "test"), split_digits(digits.target), strict=True)
    return {split: (pixels[indices], digits.target[indices]) for split, indices in parts}


class Canvases(tfds.core.GeneratorBasedBuilder):
    """Canvases of `digits` (the default), their single digits, or `fashion_mnist`, whose idx files `--source` names."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {  # noqa: RUF012 (TFDS's own attribute)
        "1.0.0": "First release.",
        "1.0.1": "Grey where they are empty.",
        "1.1.0": "48,000 training canvases in place of 12,000.",
    }
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name="digits", description="scikit-learn's digits on canvases"),
        tfds.core.BuilderConfig(
            name="digits_single", description="One of scikit-learn's digits on a quarter of a canvas"
        ),
        tfds.core.BuilderConfig(name="fashion_mnist", description="Fashion-MNIST's items on canvases"),
    ]
    pkg_dir_path = None  # no CITATIONS.bib or README.md beside this file
    source = ""  # the folder of Fashion-MNIST's idx files

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features
        names = FASHION if self.builder_config.name == "fashion_mnist" else DIGITS
        if self.builder_config.name == "digits_single":
            image = features.Image(shape=(SIDE // 2, SIDE // 2, 1), encoding_format="png")
            label = features.ClassLabel(names=list(names))
            return tfds.core.DatasetInfo(
                builder=self,
                description="Small real images, one on each canvas.",
                features=features.FeaturesDict({"image": image, "label": label}),
                supervised_keys=("image", "label"),
            )
        objects = {
            "area": np.int64,
            "bbox": features.BBoxFeature(),
            "id": np.int64,
            "is_crowd": np.bool_,
            "label": features.ClassLabel(names=list(names)),
        }
        image = {
            "image": features.Image(shape=(SIDE, SIDE, 1), encoding_format="png"),
            "image/filename": features.Text(),
            "image/id": np.int64,
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Small real images on canvases, with exact boxes, in the layout of TFDS's COCO.",
            features=features.FeaturesDict({**image, "objects": features.Sequence(objects)}),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        if self.builder_config.name.startswith("digits"):
            parts = read_digits()
        elif not self.source:
            raise UserError(
                "canvases/fashion_mnist needs Fashion-MNIST's four idx files; name their folder with --source=FOLDER "
                "(Debian's dataset-fashion-mnist: /usr/share/datasets/fashion-mnist)"
            )
        else:
            splits = idx.read_splits(os.path.expanduser(self.source))
            parts = {split: (np.asarray(held.images), np.asarray(held.labels)) for split, held in splits.items()}
        generate = self._generate_single if self.builder_config.name == "digits_single" else self._generate_examples
        return {split: generate(split, *part) for split, part in parts.items()}

    def _generate_single(self, split: str, images: np.ndarray, labels: np.ndarray) -> Iterator:
        for index in range(SINGLE[split]):
            canvas = draw_canvas(images, labels, np.random.default_rng([index, len(images)]), single=True)
            image = cv2.imencode(".png", canvas.image[:, :, None])[1].tobytes()
            yield index, {"image": image, "label": int(canvas.kind[0])}

    def _generate_examples(self, split: str, images: np.ndarray, labels: np.ndarray) -> Iterator:
        first = 1  # COCO's own tools read an object's id of 0 as none
        for index in range(NUMBER[split]):
            canvas = draw_canvas(images, labels, np.random.default_rng([index, len(images)]))
            objects = []
            for box, kind in zip(canvas.box.tolist(), canvas.kind.tolist(), strict=True):
                left, top, right, bottom = (side / SIDE for side in box)
                area = (box[2] - box[0]) * (box[3] - box[1])
                bbox = tfds.features.BBox(ymin=top, xmin=left, ymax=bottom, xmax=right)
                objects.append({"area": area, "bbox": bbox, "id": first, "is_crowd": False, "label": kind})
                first += 1
            yield (
                index,
                {
                    "image": cv2.imencode(".png", canvas.image[:, :, None])[1].tobytes(),
                    "image/filename": f"{split}_{index:05d}.png",
                    "image/id": index,
                    "objects": objects,
                },
            )
