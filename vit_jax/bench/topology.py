"""Compiles a config's training step for TPUs that are not here, and reports what the compiler knows about it.

libtpu, TPUs' compiler, is a package of PyPI and needs no TPU. It knows how much memory a step needs before it generates code, so
that answer takes seconds; an estimate of time takes the minutes of a whole compilation.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from vit_jax import config as configs
from vit_jax import partition
from vit_jax.run.assemble import Parts
from vit_jax.run.job import stand_in
from vit_jax.types import Batch, TrainState, UserError

INSTALL = "pip install 'libtpu>=0.0.42,<0.1'"
EXAMPLES = "v5e:4x4, v4:4x4x4 or v5e:4x4,slices=2"
# TPUs whose two cores JAX shows as one device; without this their topologies have a device for each core.
MEGACORE = ("v4", "v5p")
# libtpu asks no cloud service about a machine that it is told of, and may be loaded by several processes: it opens no TPU.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# `Used 72.90G of 30.75G hbm`, or, of one array, `(1.00T) exceeds available HBM (15.75G)`.
OUT_OF_MEMORY = re.compile(r"(?:Used |\()([\d.]+)([KMGT]?)\)? (?:of|exceeds available HBM) \(?([\d.]+)([KMGT]?)")


def open_topology(text: str) -> Sequence[jax.Device]:
    """The devices of a topology, to compile for.

    Args:
      text: a TPU's generation and the arrangement of its chips, `v5e:4x4`; `,slices=2` for several of them.

    Raises:
      UserError: libtpu is missing, or does not know the topology.
    """
    from jax.experimental import topologies

    name, _, rest = text.partition(",")
    slices = re.fullmatch(r"slices=([1-9]\d*)", rest or "slices=1")
    if not re.fullmatch(r"\w+:\d+(x\d+)+", name) or slices is None:
        raise UserError(f"--topology={text} is not a topology; expected one like {EXAMPLES}")
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(f"--topology={text} needs libtpu, the TPUs' compiler, which is not installed; {INSTALL}")
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    options: dict[str, Any] = {"chip_config_name": "megacore"} if name.startswith(MEGACORE) else {}
    if int(slices[1]) > 1:
        options["num_slices"] = int(slices[1])
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"--topology={text} is not a topology: {error}; expected one like {EXAMPLES}") from error


def hbm_bytes(device: jax.Device) -> int:
    """Memory that a program may use on a device of a topology, as the compiler states it when it refuses an array of 512 GB."""
    huge = jax.ShapeDtypeStruct((2**37,), jnp.float32, sharding=SingleDeviceSharding(device))
    try:
        jax.jit(lambda x: x * 2).lower(huge).compile()
    except jax.errors.JaxRuntimeError as error:
        return out_of_memory(str(error))[1]
    raise AssertionError(f"{device.device_kind} holds 512 GB")


def out_of_memory(message: str) -> tuple[int, int]:
    """(bytes that a program needs, bytes that there are) from the compiler's message; re-raises any other message."""
    found = OUT_OF_MEMORY.search(message)
    if found is None:
        raise UserError(f"the TPUs' compiler failed: {message}")
    need, unit, have, unit_of_have = found.groups()
    return int(float(need) * BYTES[unit]), int(float(have) * BYTES[unit_of_have])


def memory_needed(parts: Parts, batch_size: int, resolution: tuple[int, int], hbm: int) -> int:
    """Bytes that the step needs on a device, to a hundredth of a GiB, found in seconds, before code is generated.

    The step is compiled beside an array that fills the memory. The compiler does what it can to save memory, so a step that is
    compiled alone may take more, if there is more.
    """
    ballast = jax.ShapeDtypeStruct((hbm // 4096, 1024), jnp.float32, sharding=partition.replicated(parts.mesh))

    def beside(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        average, filler = state.average
        state, metrics = parts.train_step(state._replace(average=average), batch)
        return state._replace(average=(state.average, filler * 2)), metrics

    abstract = parts.abstract._replace(average=(parts.abstract.average, ballast))
    loaded = dataclasses.replace(parts, train_step=beside, abstract=abstract)
    try:
        loaded.compile(batch_size, resolution)
    except jax.errors.JaxRuntimeError as error:
        return out_of_memory(str(error))[0] - ballast.size * 4
    raise AssertionError("a program fits beside an array that fills the memory")


def compile_for(
    spec: str, overrides: list[tuple[str, str]], topology: str, *, num_classes: int, cycles: bool = False
) -> dict[str, Any]:
    """Compiles the training step of a config for a topology.

    Args:
      spec, overrides: the config.
      topology: see `open_topology`.
      num_classes: used where the config leaves it to the data.
      cycles: whether to compile to the end if the step fits, which takes minutes.

    Returns:
      topology, devices, batch_size, what the run settles (fsdp), and `fits`; of one device `hbm_bytes_per_chip`,
      `state_bytes_per_chip` and `peak_bytes_per_chip`: the memory that the step needs, or with `cycles` takes; and
      `estimated_cycles`, the compiler's own estimate without collectives and overlap, else None. A device is a core on TPUs that
      show both cores of a chip (v2, v3, v7x).
    """
    devices = open_topology(topology)
    hbm = hbm_bytes(devices[0])
    config, parts = stand_in(configs.load(spec), overrides, num_classes=num_classes, devices=devices, memory=hbm)
    size, resolution = config.data.batch_size, config.data.resolution
    needed = memory_needed(parts, size, resolution, hbm)
    shards = [math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(parts.abstract)]
    result: dict[str, Any] = {
        "topology": topology,
        "devices": partition.describe_devices(parts.mesh),
        "batch_size": size,
        "fsdp": config.train.fsdp,
        "fits": needed <= hbm,
        "hbm_bytes_per_chip": hbm,
        "peak_bytes_per_chip": needed,
        "state_bytes_per_chip": sum(shards),
        "estimated_cycles": None,
    }
    if not cycles or not result["fits"]:
        return result
    compiled, _ = parts.compile(size, resolution)
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None
    assert text is not None
    return result | {
        "peak_bytes_per_chip": memory.peak_memory_in_bytes,
        "estimated_cycles": estimated_cycles(text),
    }


def estimated_cycles(text: str) -> int:
    """Sum of the cycles that the compiler estimates for each operation of a program's text, loops times their length."""
    bodies: dict[str, list[str]] = {}
    entry = lines = None
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line):
            lines = bodies[head[2]] = []
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            lines = None
        elif lines is not None:
            lines.append(line)

    def cycles(name: str) -> int:
        total = 0
        for line in bodies[name]:
            if loop := re.search(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)", line):
                length = re.search(r"s32\[\].* constant\((\d+)\)", "\n".join(bodies[loop[1]]))
                total += cycles(loop[2]) * (int(length[1]) if length else 1)
            elif estimate := re.search(r'"estimated_cycles":"?(\d+)', line):
                total += int(estimate[1])
            elif call := re.search(r" call\(.*to_apply=%?([\w.\-]+)", line):
                total += cycles(call[1])
        return total

    assert entry is not None
    return cycles(entry)
