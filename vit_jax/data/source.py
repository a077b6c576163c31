"""A data set as encoded examples by index, and a choice of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from vit_jax.data.image.decode import Image, decode
from vit_jax.types import DatasetSpec, Label


class Origin(NamedTuple):
    """The origin of a source's examples.

    Args:
      split: the stored splits that the source reads, in TFDS's syntax; "" for a choice of examples that no such text describes.
      folder: where they lie; "" for a source without a folder.
    """

    split: str
    folder: str = ""


class Source:
    """Encoded examples by index. A subclass sets `spec` and has `read`; everything else has a default.

    Sources are picklable, so that each worker process gets its own.

    Args:
      spec: the split, and how many examples of which kind it has.
      checked: every image is known to decode, so that training may decode the upper part of a JPEG from the first epoch on.
      class_ids: the data set's own number of each class, where it numbers them otherwise (COCO's categories); empty for labels.
      decode: from encoded bytes to pixels, or CorruptImage. A subclass may define a method of that name. Only images that
        `data.image.decode.decode` itself decodes are decoded in part.
    """

    spec: DatasetSpec
    checked: bool = False
    class_ids: tuple[int, ...] = ()
    decode: Callable[[bytes], Image] = staticmethod(decode)

    def __len__(self) -> int:
        """Number of examples."""
        return self.spec.num_examples

    def read(self, index: int) -> tuple[bytes, Label, str]:
        """Example `index`, 0 <= index < len: (encoded image, label of the kind `spec.target`, name for messages). An
        image that cannot be read is b"", which does not decode."""
        raise NotImplementedError

    def read_many(self, indices: Sequence[int]) -> list[tuple[bytes, Label, str]]:
        """`read` for several examples; a subclass overrides it where that is faster."""
        return [self.read(int(index)) for index in indices]

    def ids(self, indices: Sequence[int]) -> list[str] | None:
        """Names that stay the examples' own in every copy of the data, such as paths; None if an example is known only by its
        index in a stored split."""
        return None

    def origin(self) -> Origin:
        """The stored splits that the source reads."""
        return Origin(self.spec.split)

    def fingerprint(self) -> bytes:
        """A hash of cheap facts about every example (names, labels, sizes), by which processes compare their data; b"" for
        none."""
        return b""

    def reading_order(self) -> np.ndarray | None:
        """Places of the examples in the order in which TFDS would read them, int64 (n,); None for data that is not TFDS's."""
        return None

    def subset(self, indices: np.ndarray) -> SubsetSource:
        """Some examples as a source; `indices` is int (m,), in the subset's order."""
        return SubsetSource(self, indices)


class SubsetSource(Source):
    """Some examples of a source; whatever else the source can do stays.

    Args:
      source: the whole.
      indices: int (m,) into it, in the subset's order.
    """

    def __init__(self, source: Source, indices: np.ndarray):
        self.source, self.indices = source, indices
        self.spec = source.spec._replace(num_examples=len(indices), class_counts=())
        self.decode, self.checked, self.class_ids = source.decode, source.checked, source.class_ids

    def whole(self, indices: Sequence[int]) -> list[int]:
        """Indices into the whole source."""
        return [int(i) for i in self.indices[np.asarray(indices, np.int64)]]

    def ids(self, indices: Sequence[int]) -> list[str] | None:
        """Those of the whole source."""
        return self.source.ids(self.whole(indices))

    def origin(self) -> Origin:
        """The folder of the whole source; no stored split is the subset."""
        return self.source.origin()._replace(split="")

    def fingerprint(self) -> bytes:
        """A hash of the whole source and the indices."""
        return hashlib.sha256(self.source.fingerprint() + self.indices.tobytes()).digest()

    def read(self, index: int) -> tuple[bytes, Label, str]:
        """Example `index` of the subset."""
        return self.source.read(self.whole([index])[0])

    def read_many(self, indices: Sequence[int]) -> list[tuple[bytes, Label, str]]:
        """`read` for several examples, as fast as the whole source is."""
        return self.source.read_many(self.whole(indices))
