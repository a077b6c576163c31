"""Four idx files like those of Fashion-MNIST, with twenty and six images."""

import gzip
from pathlib import Path

import numpy as np

RNG = np.random.default_rng(0)
IMAGES = {"train": RNG.integers(0, 256, (20, 28, 28), np.uint8), "t10k": RNG.integers(0, 256, (6, 28, 28), np.uint8)}
LABELS = {"train": np.arange(20, dtype=np.uint8) % 10, "t10k": np.arange(6, dtype=np.uint8)}


def idx_bytes(array):
    """An array as idx has it: magic number, sizes, bytes."""
    shape = b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


def write_idx(folder):
    """Writes the four files: train gzipped, t10k plain."""
    folder.mkdir()
    for prefix in IMAGES:
        for kind, arrays in (("images-idx3", IMAGES), ("labels-idx1", LABELS)):
            data = idx_bytes(arrays[prefix])
            path = folder / f"{prefix}-{kind}-ubyte"
            if prefix == "train":
                Path(f"{path}.gz").write_bytes(gzip.compress(data))
            else:
                path.write_bytes(data)
    return folder
