"""Checksums of a state's arrays, which show that a checkpoint is read as it was saved.

Orbax's chunks carry no checksum: a bit that flips on a disk, or an item of another step, would train on silently. The checksum is
the sum modulo 2**32 of an array's words, each multiplied by an odd number derived from its position. So it is the same to the bit
however the array is split over devices, any changed word or exchange of words changes it, and it costs one pass over the array
where it lies.
"""

from __future__ import annotations

import functools
import json
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vit_jax import partition

TOGETHER = 2**22  # words that the host sums at a time


def examine(tree: Any, mesh: Mesh) -> tuple[list[bool], list[int]]:
    """Examines every array of a tree once, on the devices (a sync point).

    Args:
      tree: arrays and random keys, on the mesh's devices.
      mesh: the mesh of these devices.

    Returns:
      (whether all values are finite, checksum) for each array, in the order of `jax.tree.leaves`.
    """
    look = _examiner(mesh)
    results = jax.device_get([look(x) for x in jax.tree.leaves(tree)])
    return [bool(finite) for finite, _ in results], [int(total) for _, total in results]


@functools.cache  # so that each shape compiles once, not at every save
def _examiner(mesh: Mesh) -> Any:
    def look(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        kinds = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}  # a number of 8 bytes is two words
        words = jax.lax.bitcast_convert_type(x, kinds[x.dtype.itemsize]).astype(jnp.uint32)
        place = jnp.zeros(words.shape, jnp.uint32)
        for axis, size in enumerate(words.shape):
            place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        return jnp.isfinite(x).all(), jnp.sum(words * (place * 2 + 1), dtype=jnp.uint32)

    return jax.jit(look, out_shardings=partition.replicated(mesh))


def checksum(x: Any) -> int:
    """The checksum of one array on the host, equal to the one that `examine` computes."""
    words = np.ascontiguousarray(x).reshape(-1)
    words = words.view({1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint32}[words.dtype.itemsize])
    total = 0
    for start in range(0, len(words), TOGETHER):
        part = words[start : start + TOGETHER].astype(np.uint32)
        place = np.arange(start, start + len(part), dtype=np.uint64).astype(np.uint32)
        total += int(np.sum(part * (place * np.uint32(2) + np.uint32(1)), dtype=np.uint32))
    return total % 2**32


def seal(meta: dict[str, Any]) -> dict[str, Any]:
    """Adds to a checkpoint's meta a checksum of the meta itself."""
    return meta | {"crc": _crc(meta)}


def _crc(meta: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps({k: v for k, v in meta.items() if k != "crc"}, sort_keys=True).encode())


def unseal(meta: Any) -> dict[str, Any]:
    """Checks a meta that `seal` returned; a meta older than checksums passes.

    Raises:
      ValueError: the meta differs from the one that was saved.
    """
    if not isinstance(meta, dict) or meta.get("crc", _crc(meta)) != _crc(meta):
        raise ValueError("its meta is damaged")
    return meta


def compare(items: dict[str, Any], meta: dict[str, Any], found: dict[str, list[int]]) -> None:
    """Compares the checksums of some items of a checkpoint with those in its meta.

    Args:
      items: {name of the item: tree of arrays}.
      meta: the checkpoint's meta, from `unseal`.
      found: {name of the item: checksum of each array}.

    Raises:
      ValueError: some checksums differ; the message names the first such array.
    """
    saved = meta.get("checksums", found)  # versions before checksums had none
    for item, tree in items.items():
        expected = saved.get(item) if isinstance(saved, dict) else None
        if found[item] == expected:
            continue
        names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
        pairs = zip(names, found[item], expected if isinstance(expected, list) else [], strict=False)
        wrong = [name for name, a, b in pairs if a != b] or ["another number of arrays"]
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ValueError(f"its {item} are not what was saved (checksum of {wrong[0]}{more})")


def same_step(**steps: Any) -> None:
    """Raises ValueError if the parts of a checkpoint do not name the same step."""
    if len(set(steps.values())) > 1:
        raise ValueError(
            f"it has parts of several steps: {', '.join(f'{part} {step}' for part, step in steps.items())}"
        )
