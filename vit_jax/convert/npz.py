"""Reading an npz file of parameters from a stranger: no pickle is ever executed, and a damaged file is one clear error.

Called by: run (`init`).
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import ml_dtypes
import numpy as np
from etils import epath

from vit_jax.types import UserError


def read_npz(path: str) -> dict[str, np.ndarray]:
    """Reads every tensor of an npz file.

    Args:
      path: the file; `gs://` works where gcsfs is installed.

    Returns:
      {name as stored: array}. Two-byte void arrays, as numpy stores bfloat16, come back as bfloat16.

    Raises:
      UserError: no such file, not an npz file, damaged, or holding Python objects (a pickle), naming the tensors.
    """
    place = epath.Path(path).expanduser()
    if not place.is_file():
        raise UserError(
            f"init.path={path} is neither a file nor a run's folder; expected an npz file or a workdir of ours"
        )
    tensors: dict[str, np.ndarray] = {}
    refused: list[str] = []
    try:
        with place.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise zipfile.BadZipFile("not a zip archive")
            for name in archive.files:
                try:
                    tensors[name] = _bfloat16(archive[name])
                except ValueError as error:
                    refused.append(f"  {name}: {error}")
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read as npz ({error}); expected the parameters of a released model "
            f"({Path(path).name} has {place.stat().length} bytes). Download or copy it again"
        ) from error
    if refused:
        raise UserError(
            f"{path} holds Python objects or damaged arrays, which are refused (a pickle can run any program):\n"
            + "\n".join(refused)
        )
    return tensors


def _bfloat16(array: np.ndarray | bytes) -> np.ndarray:
    if isinstance(array, bytes):  # numpy hands out what is no .npy file as it is
        raise ValueError("not an array")
    return array.view(ml_dtypes.bfloat16) if array.dtype == np.dtype("V2") else array
