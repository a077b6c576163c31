"""Checkpoints that someone damaged, byte by byte, and what becomes of them; for the tests of this folder."""

import json
import os
import struct
import time
import zipfile

import numpy_vit
from checkpoints import (
    copy_golden,
    flat,
    same_bits,
    save_safetensors,
)

from vit_jax.convert.load import load
from vit_jax.types import UserError

TENSORS = numpy_vit.draw_params(depth=1)
SECONDS = 10  # for any one file: more would be a trap


def attempt(path, expected, **overrides):
    """Loads a file that someone touched; the message if it was refused, "" if every tensor is what it should be."""
    began = time.perf_counter()
    try:
        same_bits(flat(load(str(path), **overrides)), expected)
        return ""
    except UserError as error:
        return str(error) or "refused without a word"
    finally:
        assert time.perf_counter() - began < SECONDS


class Bomb:
    """Pickled, it makes a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def npy(array, *, header=None, version=(1, 0)):
    """A .npy file's bytes, its header replaced."""
    text = header or f"{{'descr': {array.dtype.str!r}, 'fortran_order': False, 'shape': {array.shape}, }}"
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text) + 1)
    return b"\x93NUMPY" + bytes(version) + size + text.encode("latin1") + b"\n" + array.tobytes()


def zip_of(path, members, compression=zipfile.ZIP_STORED):
    """A zip of {name or (name, number): bytes}."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name if isinstance(name, str) else name[0], content)
    return path


def npz_with(path, **changed):
    """The model's npz with some tensors' .npy bytes replaced; `/` is written `__` in keywords."""
    members = {f"{name}.npy": npy(x) for name, x in TENSORS.items()}
    return zip_of(path, members | {f"{name.replace('__', '/')}.npy": x for name, x in changed.items()})


def safetensors_of(tensors, **changed):
    """A safetensors file's bytes, entries of its header replaced."""
    header, data = {}, b""
    for name, x in tensors.items():
        offsets = [len(data), len(data) + x.nbytes]
        header[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": offsets}
        data += x.tobytes()
    return with_header(json.dumps(header | changed).encode(), data)


def with_header(header, data=b"", size=None):
    return struct.pack("<Q", len(header) if size is None else size) + header + data


def sharded(folder, index, **shards):
    copy_golden("hf_classifier", folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index if isinstance(index, str) else json.dumps(index))
    for name, tensors in shards.items():
        save_safetensors(folder / f"{name}.safetensors", tensors)
    return folder
