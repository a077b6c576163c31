"""A folder of small generated images whose labels a matrix product with the pixels predicts now and then."""

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from vit_jax.models.build import normalize
from vit_jax.types import Outputs

CLASSES, SIDE = 7, 8


def write_images(folder, split, counts, seed):
    """Random PNGs, `counts[c]` of class c; returns (images, labels)."""
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for label, count in enumerate(counts):
        place = folder / split / f"class{label}"
        place.mkdir(parents=True)
        for index in range(count):
            image = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            image[..., label % 3] //= 1 + label  # so that the classes differ
            PIL.Image.fromarray(image).save(place / f"{index:02}.png")
            images.append(image)
            labels.append(label)
    return np.stack(images), np.array(labels)


@pytest.fixture
def folder(tmp_path):
    """(path, (train images, labels), (test images, labels)): 56 and 13 images, numbers that 8 and 8 devices leave over."""
    train = write_images(tmp_path, "train", [8] * CLASSES, 0)
    test = write_images(tmp_path, "test", [3, 2, 2, 2, 2, 1, 1], 1)
    return tmp_path, train, test


@pytest.fixture
def kernel():
    return np.random.default_rng(3).standard_normal((SIDE * SIDE * 3, CLASSES)).astype(np.float32) / 8


def forward(params, images):
    """A model that is one matrix product; its representation is the first twelve pixels' values."""
    x = normalize(images).reshape(images.shape[0], -1)
    return Outputs(None, None, x[:, :12], jnp.matmul(x, params["kernel"], precision="highest"))


@pytest.fixture(name="forward")
def _forward():
    return forward
