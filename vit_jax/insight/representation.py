"""Compares images of data sets by a checkpoint's representations, to confirm or find near copies for `data.dedup.search`."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.convert.load import fingerprint, load, resolution_of
from vit_jax.data.dedup import duplicates, hashing
from vit_jax.data.dedup.exclusion import probe
from vit_jax.data.dedup.search import Named
from vit_jax.data.image.recipes import Transform, make_transform
from vit_jax.data.source import Source
from vit_jax.data.stream.loader import eval_batches
from vit_jax.insight.similarity import Embedder, embed_parts, find_nearest, pair_cosines
from vit_jax.models.build import make_forward


@dataclasses.dataclass(frozen=True)
class Representation:
    """A checkpoint as a measure of likeness (`data.dedup.search.Likeness`).

    Args:
      embedder: the model.
      transform: how images are prepared for it.
      cache: folder where embeddings of whole data sets are kept for later runs.
      identity: everything besides the images that the embeddings depend on.
      batch_size: images per batch.
      threads: threads that decode images.
    """

    embedder: Embedder
    transform: Transform
    cache: Path
    identity: tuple[str, ...]
    batch_size: int = 64
    threads: int = 2

    @classmethod
    def load(
        cls,
        model: str,
        cache: Path,
        *,
        weights: str = "raw",
        settings: Sequence[str] = (),
        batch_size: int = 64,
        threads: int = 2,
        **overrides: Any,
    ) -> Representation:
        """Loads a checkpoint of any format; overrides as in `load_model`, and in `settings` as the user wrote them.

        Raises:
          UserError: the checkpoint is missing.
        """
        loaded = load(model, stored_pixels=True, **{"channels": 3, "weights": weights, **overrides})
        identity = (model, str(fingerprint(model)), weights, *settings)
        embedder = Embedder(make_forward(loaded.module), loaded.params)
        transform = make_transform("eval", resolution_of(loaded))
        return cls(embedder, transform, cache, identity, batch_size, threads)

    def embed(self, source: Source, indices: np.ndarray) -> np.ndarray:
        """Returns representations of length 1, float16 (n, d)."""
        batches = eval_batches(
            source.subset(indices),
            self.transform,
            batch_size=self.batch_size,
            threads=self.threads,
            max_corrupt=len(indices),
        )
        return self.embedder(batches)[: len(indices)]

    def cosines(self, train: Source, test: Source, pairs: np.ndarray) -> np.ndarray:
        """The cosine of each pair of PAIRS, float32 (p,)."""
        left, right = functools.partial(self.embed, train), functools.partial(self.embed, test)
        return pair_cosines(pairs["train"], pairs["test"], left, right, part=hashing.PART)

    def neighbours(self, train: Named, tests: Sequence[Named], threshold: float) -> list[np.ndarray]:
        """PAIRS among all images with at least this cosine, one array for each test set."""
        right = [np.concatenate([part for _, part in self._parts(test)]) for test in tests]
        parts: list[list[np.ndarray]] = [[np.zeros(0, duplicates.PAIRS)] for _ in tests]
        for start, left in self._parts(train):
            for number, other in enumerate(right):
                i, j, cosine = find_nearest(left, other, threshold=threshold)
                part = np.zeros(len(i), duplicates.PAIRS)
                part["train"], part["test"], part["cosine"] = i + start, j, cosine
                part["distance"] = duplicates.UNKNOWN_DISTANCE
                parts[number].append(part)
        return [np.concatenate(rows) for rows in parts]

    def _parts(self, named: Named) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (start, representations) of a whole data set in parts; parts that an earlier run embedded are read."""
        key = "\n".join([named.text, probe(named.source), *self.identity])
        folder = self.cache / hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
        source = named.source
        return embed_parts(
            len(source), hashing.PART, folder, lambda start, stop: self.embed(source, np.arange(start, stop))
        )
