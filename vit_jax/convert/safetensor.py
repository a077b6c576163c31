"""safetensors files, single or sharded: a format that cannot hold programs, read and written by its own library."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping

import ml_dtypes
import numpy as np
import safetensors
from etils import epath
from safetensors.numpy import save_file

from vit_jax.files import open_regular, read_json
from vit_jax.types import UserError, itemize, shown

INDEX = "model.safetensors.index.json"
DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}


def read_safetensors(path: str) -> dict[str, np.ndarray]:
    """Reads every tensor of a safetensors file, or of a folder's `model.safetensors` or its shards.

    Returns:
      {name as stored: array}.

    Raises:
      UserError: the file is missing or damaged, or its header does not fit the data.
    """
    place = epath.Path(path).expanduser()
    if not place.is_dir():
        return _read_file(place)
    if not (place / INDEX).exists():
        return _read_file(place / "model.safetensors")
    weight_map = read_json(place / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise UserError(f"{place / INDEX} is no index of shards: it has no weight_map; download it again")
    files = sorted(set(weight_map.values()))
    if outside := [name for name in files if not re.fullmatch(r"[\w-][\w.-]*", name)]:
        raise UserError(f"{place / INDEX} points outside its folder, at {shown(outside[0])}; nothing was read")
    tensors: dict[str, np.ndarray] = {}
    for name in files:
        shard = _read_file(place / name)
        if twice := sorted(set(shard) & set(tensors)):
            raise UserError(f"{place}: {twice[0]} stands in two shards; download the folder again")
        tensors |= shard
    if absent := sorted(set(weight_map) - set(tensors)):
        raise UserError(f"{place}: {absent[0]} is in none of the shards; download the folder again")
    return tensors


def _read_file(place: epath.Path) -> dict[str, np.ndarray]:
    if not place.exists():
        raise UserError(f"{place} does not exist; expected a safetensors file or a folder that holds one")
    tensors: dict[str, np.ndarray] = {}
    refused = []
    try:
        for name, dtype, shape, read in _entries(place):
            if dtype not in DTYPES:
                refused.append(f"{name}: {dtype}")
            elif 0 in shape:
                refused.append(f"{name}: shape {shape}, which holds no values")
            else:
                tensors[name] = read().reshape(shape)
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{place} cannot be read as safetensors ({error}); download or copy it again") from error
    if refused:
        known = ", ".join(DTYPES)
        raise UserError(f"{place} holds tensors that are not read here (known types: {known}):\n{itemize(refused)}")
    return tensors


def _entries(place: epath.Path) -> Iterator[tuple[str, str, list[int], Callable[[], np.ndarray]]]:
    """Yields (name, type, shape, function that reads it) for each tensor. The library checks the header first: offsets in range
    and in order, sizes that match type and shape, less than 100 MB of header."""
    with open_regular(place) as file:
        if "://" in str(place):
            for name, entry in safetensors.deserialize(file.read()):
                read = functools.partial(np.frombuffer, entry["data"], DTYPES.get(entry["dtype"]))
                yield name, entry["dtype"], entry["shape"], read
            return
    # Memory-mapped: half the time of reading the whole file and copying each tensor, and no second copy in memory.
    with safetensors.safe_open(place, framework="np") as mapped:
        for name in mapped.keys():  # noqa: SIM118  (not a dict, and not iterable)
            kind = mapped.get_slice(name)
            yield name, kind.get_dtype(), kind.get_shape(), functools.partial(mapped.get_tensor, name)


def write_safetensors(path: epath.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors under their names, marked as PyTorch's, because readers require the mark."""
    save_file({name: np.asarray(x, order="C") for name, x in tensors.items()}, path, metadata={"format": "pt"})
