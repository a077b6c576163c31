"""Fills one batch: reads, decodes and transforms its examples, and deals with those that are corrupt."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vit_jax.data.image.decode import Image, decode
from vit_jax.data.image.encoded import CorruptImage
from vit_jax.data.image.jpeg import TopOfJpeg, find_height
from vit_jax.data.image.recipes import Transform
from vit_jax.data.image.steps import Example
from vit_jax.data.source import Source
from vit_jax.types import Batch, Label

PADDING = -1  # in place of an example's index
TOGETHER = 128  # examples read at once; a large batch is never encoded in memory as a whole


class Element(NamedTuple):
    """The result of a worker.

    Args:
      batch: the rows.
      corrupt: (name, reason) of each image that was corrupt.
      problem: why the run cannot continue, or "".
    """

    batch: Batch
    corrupt: tuple[tuple[str, str], ...]
    problem: str


class BatchReader:
    """Reads, decodes and transforms the examples of one batch. Runs in threads and worker processes; numpy only.

    Args:
      source: where examples come from.
      transform: from `make_transform`.
      seed: of the augmentation: example `index` in `epoch` sees `default_rng([seed, epoch, index])`.
      replace: a corrupt image is replaced by the next example that decodes (training); otherwise its mask is 0.
      max_corrupt: how many examples in a row are tried as replacement, before the batch is given up.
      upright: images are turned as EXIF says.
    """

    def __init__(
        self, source: Source, transform: Transform, seed: int, replace: bool, max_corrupt: int, upright: bool = True
    ):
        self._source, self._transform = source, transform
        self._seed, self._replace, self._max_corrupt = seed, replace, max_corrupt
        self._decode = source.decode
        self._checked = source.checked
        # For each image that is known to decode, the position of its height (see `data.image.jpeg`); else 0.
        self._partial = self._decode is decode and transform.crops_first
        if self._decode is decode:  # crops, which training takes, are decoded the fast way, as the release decodes
            self._decode = functools.partial(decode, fast_dct=self._partial, upright=upright)
        self._places = np.zeros(len(source) if self._partial else 0, np.uint16)

    def __call__(self, keys: np.ndarray, transform: Transform | None = None) -> Element:
        """Reads one batch.

        Args:
          keys: int64 (b, 2), the (epoch, index) of each row; index PADDING leaves the row zero and its mask 0.
          transform: used in place of the reader's own, of the same recipe.

        Returns:
          The batch and its corrupt images.
        """
        transform = transform or self._transform
        batch = Batch(
            image=np.empty((len(keys), *transform.resolution, 3), np.uint8),
            target=self._source.spec.target.empty(len(keys)),
            mask=np.zeros(len(keys), np.float32),
        )
        corrupt: list[tuple[str, str]] = []
        rows = np.flatnonzero(keys[:, 1] != PADDING)
        for start in range(0, len(rows), TOGETHER):
            some = rows[start : start + TOGETHER]
            places = keys[some].tolist()
            # Together: between two images, which fill the caches, each of these small calls takes twice as long.
            examples = self._source.read_many([index for _, index in places])
            rngs = [np.random.default_rng([self._seed, epoch, index]) for epoch, index in places]
            for row, (_, index), example, rng in zip(some.tolist(), places, examples, rngs, strict=True):
                problem = self._fill(batch, row, index, example, rng, corrupt, transform)
                if problem:
                    return Element(batch, tuple(corrupt), problem)
        batch.image[batch.mask == 0] = 0
        return Element(batch, tuple(corrupt), "")

    def _fill(
        self,
        batch: Batch,
        row: int,
        index: int,
        example: tuple[bytes, Label, str],
        rng: np.random.Generator,
        corrupt: list[tuple[str, str]],
        transform: Transform,
    ) -> str:
        """Writes one row; returns why the run cannot continue, or "". `rng` is the row's, also if the example is replaced."""
        for attempt in range(min(len(self._source), self._max_corrupt + 1) if self._replace else 1):
            actual = (index + attempt) % len(self._source)
            data, label, name = example if attempt == 0 else self._source.read(actual)
            place = batch.image[row]
            try:
                image = self._open(actual, data)
                # A part of a JPEG is decoded when the crop takes it.
                done = transform(Example(image, label, image.shape[:2]), rng, place)
            except CorruptImage as error:
                corrupt.append((name, str(error)))
                continue
            if problem := self._source.spec.target.put(batch.target, row, done.target):
                return f"{name} has {problem}"
            if done.image is not place:
                place[:] = done.image
            batch.mask[row] = 1.0
            return ""
        return f"no image that decodes was found in its place: {len(corrupt)} tried" if self._replace else ""

    def _open(self, index: int, data: bytes) -> Image | TopOfJpeg:
        """Decodes an image. One that has already passed a full, checked decode, in this process or because the source is checked,
        is returned as a `TopOfJpeg`, which decodes only the rows that a crop needs."""
        if not self._partial or not data:  # no bytes: a file that was read before cannot be read any more
            return self._decode(data)
        if self._checked and not self._places[index]:
            self._places[index] = find_height(data)
        if self._places[index]:
            return TopOfJpeg(data, int(self._places[index]))
        image = self._decode(data)
        self._places[index] = find_height(data)
        return image


class SizedReader:
    """Reads batches whose size changes from step to step.

    Args:
      reader: reads them.
      transforms: of each size, from one recipe.
    """

    def __init__(self, reader: BatchReader, transforms: Sequence[Transform]):
        self._reader, self._transforms = reader, transforms

    def __call__(self, sized: tuple[int, np.ndarray]) -> Element:
        """Reads one batch; `sized` is an item of `SizedKeys`."""
        size, keys = sized
        return self._reader(keys, self._transforms[size])
