"""Small tar shards, and what is read from them."""

import io
import tarfile

import PIL.Image
import pytest

from vit_jax.data.image.decode import decode
from vit_jax.data.open import open_source
from vit_jax.types import UserError

# `printf train/0003.png | md5sum` and so on, for 0 to 19, sorted: worked out in the shell.
ORDER_OF_TRAIN = [11, 12, 10, 8, 16, 2, 6, 17, 19, 18, 13, 0, 5, 14, 9, 4, 7, 1, 15, 3]


def encode(value, fmt="PNG"):
    file = io.BytesIO()
    PIL.Image.new("RGB", (5, 4), (value, 0, 0)).save(file, fmt, lossless=True)
    return file.getvalue()


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))


def samples(start, stop, label=lambda i: i % 3):
    for i in range(start, stop):
        yield f"{i:04d}.cls", b"%d" % label(i)
        yield f"{i:04d}.png", encode(i)


def write_shards(root):
    """Two shards to train on, 20 samples, and one to test with, 5; three classes. Returns their folder."""
    write_tar(root / "train-000.tar", samples(0, 12))
    write_tar(root / "train-001.tar", samples(12, 20))
    write_tar(root / "test-000.tar", samples(0, 5))
    return root


def read_all(source):
    return [source.read(index) for index in range(len(source))]


def values(source):
    return [int(decode(data)[0, 0, 0]) for data, _, _ in read_all(source)]


def refuse(dataset, split="train"):
    with pytest.raises(UserError) as error:
        open_source(str(dataset), split)
    return str(error.value)
