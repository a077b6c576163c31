"""npz files of parameters. Files may be hostile: no pickle is ever executed, and a damaged file gives one clear error."""

from __future__ import annotations

import math
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import ml_dtypes
import numpy as np
from etils import epath

from vit_jax.files import open_regular
from vit_jax.types import UserError, itemize

# Trained weights hardly compress. A small file that unpacks to far more is an attack on the reader's memory.
MAX_EXPANSION = 100
HARMLESS_BYTES = 2**28


def read_npz(path: str) -> dict[str, np.ndarray]:
    """Reads every tensor of an npz file.

    Args:
      path: the file; `gs://` works where gcsfs is installed.

    Returns:
      {name as stored: array}. Two-byte void arrays, which is how numpy stores bfloat16, become bfloat16 again.

    Raises:
      UserError: the file is not npz, is damaged, unpacks to far more than it holds, or holds Python objects (a pickle);
        the message names the tensors.
    """
    place = epath.Path(path).expanduser()
    tensors: dict[str, np.ndarray] = {}
    refused: list[str] = []
    try:
        with open_regular(place) as file, zipfile.ZipFile(file) as archive:
            _check_expansion(archive, place)
            _check_count(archive, file)
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name in tensors:
                    refused.append(f"{name}: stands twice in the file")
                    continue
                try:
                    with archive.open(member) as data:
                        tensors[name] = _read_array(data, member.file_size)
                except ValueError as error:
                    refused.append(f"{name}: {error}")
    except UserError:
        raise
    except Exception as error:  # a damaged zip raises a dozen types, such as struct.error and UnicodeDecodeError
        raise UserError(
            f"{path} cannot be read as npz ({error}); expected the parameters of a model "
            f"({Path(path).name} has {place.stat().length} bytes). Download or copy it again"
        ) from error
    if refused:
        raise UserError(
            f"{path} holds Python objects or damaged arrays, which are refused (a pickle can run any program):\n"
            f"{itemize(refused)}"
        )
    return tensors


def write_npz(path: epath.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors under their names, uncompressed; bfloat16 as the two-byte void arrays of released files."""
    arrays = {name: x.view("V2") if x.dtype == ml_dtypes.bfloat16 else x for name, x in tensors.items()}
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _check_expansion(archive: zipfile.ZipFile, place: epath.Path) -> None:
    unpacked = sum(member.file_size for member in archive.infolist())
    packed = place.stat().length
    if unpacked > max(HARMLESS_BYTES, MAX_EXPANSION * packed):
        raise UserError(
            f"{place} has {packed:,} bytes and would unpack to {unpacked:,}; expected weights, which hardly compress. "
            f"Nothing was read; if the file is yours, save it uncompressed"
        )


def _check_count(archive: zipfile.ZipFile, file: IO[bytes]) -> None:
    """Checks the number of members: Python trusts the zip's table, in which a damaged length can swallow the next entry."""
    end = file.seek(0, 2)
    file.seek(max(end - 2**16 - 22, 0))
    tail = file.read()
    (count,) = struct.unpack_from("<H", tail, tail.rfind(b"PK\5\6") + 10)
    if count not in (len(archive.infolist()), 2**16 - 1):
        raise zipfile.BadZipFile(f"its table lists {len(archive.infolist())} of {count} members")


def _read_array(data: IO[bytes], stored_bytes: int) -> np.ndarray:
    """Reads one .npy member, whose header must agree with its size before anything is allocated."""
    try:
        version = np.lib.format.read_magic(data)
    except ValueError as error:
        raise ValueError(f"not an array ({error})") from error
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise ValueError(f"not an array of an .npy version known here: {version}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns about files of Python 2, which are fine
            shape, fortran_order, dtype = read_header[version](data)
    except Exception as error:  # Python's tokenizer and parser raise other types than ValueError for nonsense
        raise ValueError(f"its header cannot be read ({error})") from error
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded: they are pickles")
    if min(shape, default=1) < 1 or not dtype.itemsize:
        raise ValueError(f"its shape is {shape} of {dtype}: it holds no values")
    expected = math.prod(shape) * dtype.itemsize
    if not 0 <= stored_bytes - expected <= 2**16:
        raise ValueError(f"its header says {shape} of {dtype}, {expected:,} bytes, and it holds about {stored_bytes:,}")
    content = data.read(expected)
    if len(content) != expected or data.read(1):
        raise ValueError(f"its header says {expected:,} bytes, and it holds {'more' if len(content) else 'fewer'}")
    array = np.frombuffer(bytearray(content), dtype).reshape(shape, order="F" if fortran_order else "C")
    return array.view(ml_dtypes.bfloat16) if dtype == np.dtype("V2") else array
