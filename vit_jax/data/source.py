"""What a data set is: encoded examples by index."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from vit_jax.data.image.decode import decode
from vit_jax.types import DatasetSpec, Label


class Source(Protocol):
    """Encoded examples by index; picklable, so that worker processes get their own. A class that has these three is one.

    A `read_many(indices)` that returns a list of what `read` returns is used where it is there; so is a `decode(data)`, in
    place of `decode.decode`.
    """

    spec: DatasetSpec

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def read(self, index: int) -> tuple[bytes, Label, str]:
        """Example `index`, 0 <= index < len: (encoded image, label, name for messages); the label is a tuple where
        `spec.multi_label`."""
        ...


def read_many(source: Source, indices: Sequence[int]) -> list[tuple[bytes, Label, str]]:
    """Several examples of any source, the fast way where it has one."""
    many = getattr(source, "read_many", None)
    return many(indices) if many is not None else [source.read(int(index)) for index in indices]


class SubsetSource:
    """Some examples of a source, by index; what else it can do stays. Picklable.

    Args:
      source: the whole.
      indices: int (m,) into it, in the subset's order.
    """

    def __init__(self, source: Source, indices: np.ndarray):
        self.source, self.indices = source, indices
        self.spec = source.spec._replace(num_examples=len(indices), class_counts=())
        self.decode = getattr(source, "decode", decode)
        self.checked = getattr(source, "checked", False)

    def __len__(self) -> int:
        return self.spec.num_examples

    def whole(self, indices: Sequence[int]) -> list[int]:
        """Indices into the whole source."""
        return [int(i) for i in self.indices[np.asarray(indices, np.int64)]]

    def fingerprint(self) -> bytes:
        """Of the whole source, where it has one, with the indices."""
        whole = getattr(self.source, "fingerprint", bytes)()
        return hashlib.sha256(whole + self.indices.tobytes()).digest()

    def read(self, index: int) -> tuple[bytes, Label, str]:
        """Example `index` of the subset."""
        return self.source.read(self.whole([index])[0])

    def read_many(self, indices: Sequence[int]) -> list[tuple[bytes, Label, str]]:
        """As `read`, for several."""
        return read_many(self.source, self.whole(indices))
