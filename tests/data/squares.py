"""A source in memory with the two members that every source must have."""

import io

import numpy as np
import PIL.Image

from vit_jax.data.source import Source
from vit_jax.targets import ClassId
from vit_jax.types import DatasetSpec


class Squares(Source):
    """Six gray squares, each brighter than the one before, and nothing but what a source has to have."""

    spec = DatasetSpec("squares", "train[2:8]", 6, ClassId(6), (), (8, 8, 3))

    def read(self, index):
        buffer = io.BytesIO()
        image = np.full((8, 8, 3), 40 * index, np.uint8)
        image[index:] = 255
        PIL.Image.fromarray(image).save(buffer, "PNG")
        return buffer.getvalue(), index, f"square {index}"
