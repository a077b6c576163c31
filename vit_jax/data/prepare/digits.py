"""TFDS builder of the 1,797 handwritten digits that scikit-learn ships, so that real images go through the same read path
as every other data set without a download."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

FOLD = 5  # one example in five is a test example


def split_digits(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Says which digits are for training and which for testing. No random numbers: the rule is the split.

    Order the examples by class, and inside a class as scikit-learn has them; every fifth one, the first included, is
    a test example. So each class gives a fifth of its examples, to within one.

    Args:
      labels: int (n,).

    Returns:
      Indices (train, test), each ascending; 1,437 and 360 of the 1,797.
    """
    by_class = np.argsort(labels, kind="stable")
    test = np.zeros(len(labels), bool)
    test[by_class[::FOLD]] = True
    return np.flatnonzero(~test), np.flatnonzero(test)


class Digits(tfds.core.GeneratorBasedBuilder):
    """scikit-learn's 8 x 8 digits, values 0..16 scaled to 0..255 and stored as PNG."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "scikit-learn's digits, split by class and order."}  # noqa: RUF012 (TFDS's own attribute)
    pkg_dir_path = None  # no CITATIONS.bib or README.md beside this file

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits (UCI optdigits, test part) as shipped with scikit-learn.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        train, test = split_digits(digits.target)
        return {
            "train": self._generate_examples(digits.images, digits.target, train),
            "test": self._generate_examples(digits.images, digits.target, test),
        }

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray, indices: np.ndarray) -> Iterator:
        for index in indices:
            pixels = np.rint(images[index] * (255 / 16)).astype(np.uint8)[:, :, None]
            # Encoded here: TFDS encodes arrays with TensorFlow, but takes bytes as they are.
            yield int(index), {"image": cv2.imencode(".png", pixels)[1].tobytes(), "label": int(labels[index])}
