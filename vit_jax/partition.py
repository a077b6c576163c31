"""Devices and shards: the mesh, the axis along which each array is split, and moving batches onto devices.

One code path from a laptop's CPU to a pod: `jax.jit` with NamedShardings over a mesh of two axes, `data` and `fsdp`. A
batch is split over both; with fsdp > 1, parameters, optimizer state and average are split over `fsdp` as well.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from vit_jax.types import Batch, UserError

BATCH_AXES = ("data", "fsdp")
# Parameters with fewer elements are copied to every device: splitting them costs more than it saves.
MIN_SHARDED_SIZE = 2**14


class Rule(NamedTuple):
    """How parameters are split and used.

    Args:
      path: a pattern, searched in the path of a parameter, `Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel`.
      layers: leading axes that count layers and are not split: a loop over layers takes a slice of them in every step.
      gathered: whether all devices receive the whole parameter where the forward pass starts; else the layer asks for it.
    """

    path: str
    layers: int = 0
    gathered: bool = True


# The first rule whose pattern is found counts.
RULES = (
    Rule(r"encoderblock/", layers=1, gathered=False),
    Rule(r"encoderblock_\d+/", gathered=False),
    Rule(r""),
)

# The axis of heads in attention's kernels: split there, their gradients are reduce-scattered by libtpu, which all-reduces them in
# full if they are split along the width (H/14 on v3:8x8, fsdp 4: 319 MB of all-reduce a step in place of 738, 1.7% fewer cycles).
HEADS = ((re.compile(r"(^|/)(query|key|value)/kernel$"), 1), (re.compile(r"(^|/)out/kernel$"), 0))


def make_mesh(fsdp: int = 1, devices: Any = None) -> Mesh:
    """Arranges devices as (data, fsdp).

    Args:
      fsdp: devices over which each parameter is split; 1 for plain data parallelism.
      devices: the devices to use; all by default.

    Raises:
      UserError: fsdp does not divide the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    # Auto axes: with make_mesh's default (Explicit), fsdp-style code raises ShardingTypeError.
    return Mesh(arrange(devices, fsdp), BATCH_AXES, axis_types=(AxisType.Auto,) * 2)


def arrange(devices: Any, fsdp: int) -> np.ndarray:
    """Devices in an array (data, fsdp), so that the devices of one row share the fastest network.

    A slice is a TPU slice or a node of GPUs: slow links join it to others, so a row lies in one slice if it fits there, and in
    whole slices otherwise. `jax.make_mesh` refuses several slices.
    """
    slices, per_slice = _slices(devices)
    if fsdp not in (choices := splits(devices)):
        inside = f" in {slices} slices of {per_slice}" if slices > 1 else ""
        raise UserError(
            f"train.fsdp={fsdp} does not divide the {len(devices)} devices{inside}; choose one of {choices}"
        )
    spread = _spread(fsdp, slices, per_slice)
    assert spread is not None
    across, within = spread
    if slices == 1:
        return mesh_utils.create_device_mesh(within, devices, allow_split_physical_axes=True)
    return mesh_utils.create_hybrid_device_mesh(within, across, devices, allow_split_physical_axes=True)


def splits(devices: Any) -> list[int]:
    """The values of `train.fsdp` that some devices can be arranged for."""
    return [n for n in range(1, len(devices) + 1) if _spread(n, *_slices(devices))]


def device_memory(devices: Any) -> int | None:
    """Bytes that a program may use on a device; None if the backend does not report it, as a CPU does not."""
    mine = [device for device in devices if device.process_index == jax.process_index()]
    return min((device.memory_stats() or {}).get("bytes_limit", 0) for device in mine) or None


def _slices(devices: Any) -> tuple[int, int]:
    """(slices, devices of each)."""
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    return slices, len(devices) // slices


def _spread(fsdp: int, slices: int, per_slice: int) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """((data, fsdp) over slices, (data, fsdp) over the devices of a slice); None if the devices cannot be arranged so."""
    inside = math.gcd(fsdp, per_slice)
    outside = fsdp // inside
    if slices % outside or (outside > 1 and inside < per_slice):
        return None
    return (slices // outside, outside), (per_slice // inside, inside)


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
      The tree with a NamedSharding per leaf; see `split` for the axis.
    """

    def shard(path: Any, leaf: Any) -> NamedSharding:
        layers = rule_of(path).layers if leaf.ndim else 0
        spec = split(leaf.shape[layers:], mesh.shape["fsdp"], heads_of(path))
        return NamedSharding(mesh, PartitionSpec(*(None,) * layers, *spec))

    return jax.tree_util.tree_map_with_path(shard, tree)


def rule_of(path: Any) -> Rule:
    """The rule of `RULES` for a leaf at a path of `jax.tree_util`."""
    return next(rule for rule in RULES if re.search(rule.path, _name(path)))


def heads_of(path: Any) -> int | None:
    """The axis of heads of a leaf at a path, layers left out; None if it is no kernel of attention."""
    return next((axis for pattern, axis in HEADS if pattern.search(_name(path))), None)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def split(shape: tuple[int, ...], size: int, first: int | None = None) -> PartitionSpec:
    """Splits the axis `first` if `size` divides it, else the largest axis that it divides (the last, if several are equal);
    shapes under `MIN_SHARDED_SIZE` elements are copied."""
    axes = [i for i, n in enumerate(shape) if n % size == 0]
    if size == 1 or not axes or math.prod(shape) < MIN_SHARDED_SIZE:
        return PartitionSpec()
    chosen = first if first in axes else max(axes, key=lambda i: (shape[i], i))
    return PartitionSpec(*("fsdp" if i == chosen else None for i in range(len(shape))))


def on_mesh(forward: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Makes `forward(params, images, **options) -> tree of arrays` use parameters that are split over the devices of a mesh.

    Each device computes its own rows of the batch with whole parameters (fully sharded data parallelism). Left alone, XLA's
    partitioner may do the reverse: the parameters stay where they are, and every device receives the whole batch.
    """
    if mesh.shape["fsdp"] == 1:
        return forward

    def on(params: Any, images: jax.Array, **options: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            here = jax.tree_util.tree_map_with_path(
                lambda path, x: _gather(x, heads_of(path)) if rule_of(path).gathered else x, params
            )
            return jax.tree.map(constrain, forward(here, constrain(images), **options))

    return on


def splits_params() -> bool:
    """Whether the code runs inside `on_mesh`, with parameters that are split."""
    return not jax.sharding.get_abstract_mesh().empty


def constrain(x: Any) -> Any:
    """Keeps the leading axis of an activation split over all devices.

    The identity outside `on_mesh`, and for an axis that does not divide.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not x.ndim or x.shape[0] % mesh.size:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(BATCH_AXES)))


def gather_layer(params: Any, dtype: DTypeLike) -> Any:
    """The whole parameters of a layer on every device, inside `on_mesh`.

    Args:
      params: the parameters of one layer.
      dtype: of the kernels: those are sent in the type that the layer computes with, which halves the traffic of bfloat16.
    """

    def gather(path: Any, x: jax.Array) -> jax.Array:
        return _gather(x.astype(dtype) if path[-1].key == "kernel" else x, heads_of(path))

    return jax.tree_util.tree_map_with_path(gather, params)


def _gather(x: jax.Array, heads: int | None) -> jax.Array:
    """The whole of a parameter on every device; its gradient is split as the parameter is."""
    mesh = jax.sharding.get_abstract_mesh()
    spec = split(x.shape, mesh.shape["fsdp"], heads)
    return x if spec == PartitionSpec() else _whole(x, mesh, spec)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _whole(x: jax.Array, mesh: AbstractMesh, spec: PartitionSpec) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec()))


# with_sharding_constraint's own gradient would be constrained like its output: the whole gradient on every device.
_whole.defvjp(
    lambda x, mesh, spec: (_whole.fun(x, mesh, spec), None),
    lambda mesh, spec, _, gradient: (jax.lax.with_sharding_constraint(gradient, NamedSharding(mesh, spec)),),
)


def check_batch_size(batch_size: int, mesh: Mesh, *, accumulation: int = 0, path: str = "data.batch_size") -> None:
    """Checks that a global batch splits evenly over devices and accumulation steps; 0 steps for a batch that is not trained on.

    Raises:
      UserError: it does not; the message suggests the nearest valid sizes.
    """
    unit = mesh.size * (accumulation or 1)
    if batch_size < 1 or batch_size % unit:
        low = max(batch_size, 0) // unit * unit
        steps = f" x {accumulation} accumulation steps = {unit}" if accumulation else ""
        raise UserError(
            f"{path}={batch_size} is not divisible by {mesh.size} devices{steps}; use {f'{low} or ' if low else ''}{low + unit}"
            f"{', or change train.accumulation' if accumulation else ''}"
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
