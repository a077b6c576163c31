"""What a data set is: encoded examples by index."""

from __future__ import annotations

from typing import Protocol

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
