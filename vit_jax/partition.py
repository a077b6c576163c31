"""Devices and shards: the mesh, the axis along which each array is split, and moving batches onto devices.

One code path from a laptop's CPU to a pod: `jax.jit` with NamedShardings over a mesh of two axes, `data` and `fsdp`. A
batch is split over both; with fsdp > 1, parameters, optimizer state and average are split over `fsdp` as well.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vit_jax.types import Batch, UserError

BATCH_AXES = ("data", "fsdp")
# Parameters with fewer elements are copied to every device: splitting them costs more than it saves.
MIN_SHARDED_SIZE = 2**14


def make_mesh(fsdp: int = 1, devices: Any = None) -> Mesh:
    """Arranges devices as (data, fsdp).

    Args:
      fsdp: devices over which each parameter is split; 1 for plain data parallelism.
      devices: the devices to use; all by default.

    Raises:
      UserError: fsdp does not divide the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if fsdp < 1 or len(devices) % fsdp:
        divisors = [n for n in range(1, len(devices) + 1) if len(devices) % n == 0]
        raise UserError(f"train.fsdp={fsdp} does not divide the {len(devices)} devices; choose one of {divisors}")
    # Auto axes: with make_mesh's default (Explicit), fsdp-style code raises ShardingTypeError.
    return jax.make_mesh((len(devices) // fsdp, fsdp), BATCH_AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding with a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding with the leading axis split over all devices."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def param_sharding(tree: Any, mesh: Mesh) -> Any:
    """The sharding of each leaf of a tree of parameters (or of optimizer state, whose leaves have the same shapes).

    Args:
      tree: arrays or ShapeDtypeStructs.
      mesh: the mesh.

    Returns:
      The tree with a NamedSharding per leaf. It splits the largest axis that the fsdp size divides (the last, if several are
      equal); leaves under `MIN_SHARDED_SIZE` elements are copied.
    """
    size = mesh.shape["fsdp"]

    def shard(leaf: Any) -> NamedSharding:
        axes = [i for i, n in enumerate(leaf.shape) if n % size == 0]
        if size == 1 or not axes or math.prod(leaf.shape) < MIN_SHARDED_SIZE:
            return replicated(mesh)
        split = max(axes, key=lambda i: (leaf.shape[i], i))
        return NamedSharding(mesh, PartitionSpec(*("fsdp" if i == split else None for i in range(len(leaf.shape)))))

    return jax.tree.map(shard, tree)


def check_batch_size(batch_size: int, mesh: Mesh, *, accumulation: int = 1, path: str = "data.batch_size") -> None:
    """Checks that a global batch splits evenly over devices and accumulation steps.

    Raises:
      UserError: it does not; the message suggests the nearest valid sizes.
    """
    unit = mesh.size * accumulation
    if batch_size < 1 or batch_size % unit:
        low = max(batch_size, 0) // unit * unit
        raise UserError(
            f"{path}={batch_size} is not divisible by {mesh.size} devices x {accumulation} accumulation steps = {unit}; "
            f"use {f'{low} or ' if low else ''}{low + unit}, or change train.accumulation"
        )


def put_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Moves this process's rows of a batch onto its devices, as one global batch."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.ascontiguousarray(x)), batch)


def put_tree(tree: Any, shardings: Any) -> Any:
    """Places a tree of host arrays and random keys, which must be equal on all processes, shard by shard."""

    def put(x: Any, sharding: NamedSharding) -> jax.Array:
        if sharding.is_fully_addressable:
            return jax.device_put(x, sharding)
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(x), sharding), impl=jax.random.key_impl(x))
        host = np.asarray(x)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(put, tree, shardings)


def describe_devices(mesh: Mesh) -> str:
    """One line: `8 x cpu (data 8 x fsdp 1), 1 process`."""
    kind = mesh.devices.flat[0].device_kind
    count = jax.process_count()
    return (
        f"{mesh.size} x {kind} (data {mesh.shape['data']} x fsdp {mesh.shape['fsdp']}), "
        f"{count} process{'es' if count > 1 else ''}"
    )
