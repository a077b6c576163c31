"""Reads the idx files of MNIST and its relatives, and feeds them to TFDS's own builder in place of its download."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from vit_jax.files import open_regular
from vit_jax.types import UserError

NAMES = ("mnist", "fashion_mnist", "kmnist")  # TFDS builders whose data is these four files
PREFIXES = {"train": "train", "test": "t10k"}
MAX_BYTES = 2**28  # of one file; the largest of them, MNIST's training images, has 47 MB
EXPECTED = {"train": 60_000, "test": 10_000}


class IdxSplit(NamedTuple):
    """One split as it is in the files: images uint8 (n, 28, 28), labels uint8 (n,)."""

    images: np.ndarray
    labels: np.ndarray


def read_idx(path: str, num_dims: int) -> np.ndarray:
    """Reads one idx file of unsigned bytes, gzipped or not.

    Args:
      path: a file such as `train-images-idx3-ubyte.gz`.
      num_dims: dimensions expected, 3 for images and 1 for labels.

    Returns:
      uint8 array of that many dimensions.

    Raises:
      UserError: the file is not gzip, has another magic number, or is shorter or longer than its header says.

    Source: http://yann.lecun.com/exdb/mnist, "the idx file format".
    """
    try:
        with open_regular(path) as opened, gzip.open(opened) if path.endswith(".gz") else opened as file:
            data = file.read(MAX_BYTES)  # a gzip file may hold a thousand times its size
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{path}: expected a whole gzip file, found a damaged one ({error}); download it again"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}); download it again") from error
    magic = bytes([0, 0, 0x08, num_dims])
    if data[:4] != magic:
        found = data[:4].hex() or "an empty file"
        raise UserError(
            f"{path}: expected magic number {magic.hex()} (idx, uint8, {num_dims} dimensions), found {found}"
        )
    start = 4 + 4 * num_dims
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4))
    count = math.prod(shape)
    if len(data) != start + count:
        state = "truncated" if len(data) < start + count else "too long"
        raise UserError(
            f"{path}: {state}: its header says {' x '.join(map(str, shape))} = {count} bytes of data, found "
            f"{max(len(data) - start, 0)}; download it again"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _find(folder: str, name: str) -> str | None:
    paths = (os.path.join(folder, name + suffix) for suffix in ("", ".gz"))
    return next((path for path in paths if os.path.isfile(path)), None)


def read_splits(folder: str) -> dict[str, IdxSplit]:
    """Reads and checks the four files of a data set.

    Args:
      folder: holds train-images-idx3-ubyte, train-labels-idx1-ubyte and the same with t10k, each gzipped or not.

    Returns:
      {"train": ..., "test": ...}.

    Raises:
      UserError: files that are missing, damaged, or do not belong together.
    """
    wanted = [f"{p}-{kind}-ubyte" for p in PREFIXES.values() for kind in ("images-idx3", "labels-idx1")]
    missing = [name for name in wanted if _find(folder, name) is None]
    if missing:
        found = sorted(os.listdir(folder))[:8] if os.path.isdir(folder) else "no such folder"
        raise UserError(
            f"--source={folder}: expected the files {', '.join(missing)} (or with .gz), found {found}; point --source at "
            "the folder that holds all four idx files (Debian's dataset-fashion-mnist: /usr/share/datasets/fashion-mnist)"
        )
    splits = {}
    for split, prefix in PREFIXES.items():
        images = read_idx(str(_find(folder, f"{prefix}-images-idx3-ubyte")), 3)
        labels = read_idx(str(_find(folder, f"{prefix}-labels-idx1-ubyte")), 1)
        if len(images) == 0 or len(images) != len(labels):
            raise UserError(
                f"{folder}: {split} has {len(images)} images and {len(labels)} labels; expected as many of each"
            )
        if images.shape[1:] != (28, 28):
            raise UserError(f"{folder}: {split} images are {images.shape[1:]}, expected (28, 28)")
        if labels.max() > 9:
            raise UserError(f"{folder}: {split} has label {labels.max()}, expected 0 to 9")
        splits[split] = IdxSplit(images, labels)
    return splits


def _generate(split: IdxSplit) -> Iterator[tuple[int, dict[str, Any]]]:
    import cv2

    # The same keys as TFDS's generator, because they decide the order on disk: here and there it is the same.
    for key, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
        yield key, {"image": cv2.imencode(".png", image[:, :, None])[1].tobytes(), "label": int(label)}


def feed(builder: Any, splits: dict[str, IdxSplit]) -> None:
    """Replaces the builder's download step: everything else it writes is TFDS's own.

    Args:
      builder: TFDS builder of a name in NAMES, not yet prepared.
      splits: from `read_splits`.
    """
    builder._split_generators = lambda *_, **__: {name: _generate(split) for name, split in splits.items()}
