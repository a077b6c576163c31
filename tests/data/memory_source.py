"""A source in memory that counts what is read."""

from vit_jax.data.source import Source
from vit_jax.targets import ClassId
from vit_jax.types import DatasetSpec


class MemorySource(Source):
    """Encoded images; counts what is read."""

    def __init__(self, encoded, name="memory"):
        self.spec = DatasetSpec(name, "train", len(encoded), ClassId(1), ("any",), (None, None, 3))
        self.encoded, self.reads = encoded, 0

    def __len__(self):
        return len(self.encoded)

    def read(self, index):
        self.reads += 1
        return self.encoded[index], 0, f"#{index}"
