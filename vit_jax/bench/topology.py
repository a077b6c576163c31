"""Compiles a config's training step for TPUs that are not here, and reports what the compiler knows about it.

libtpu, TPUs' compiler, is a package of PyPI and needs no TPU. It says whether the step fits into memory before it generates
code, so that answer takes seconds; a step that fits takes the minutes of a whole compilation.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from vit_jax import config as configs
from vit_jax import partition
from vit_jax.run.job import stand_in
from vit_jax.types import UserError

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


def compile_for(spec: str, overrides: list[tuple[str, str]], topology: str, *, num_classes: int) -> dict[str, Any]:
    """Compiles the training step of a config for a topology.

    Args:
      spec, overrides: the config.
      topology: see `open_topology`.
      num_classes: used where the config leaves it to the data.

    Returns:
      topology, devices, mesh, and what the run settles (fsdp, scan, remat); `fits`; of one device: `hbm_bytes_per_chip`,
      `peak_bytes_per_chip` (of a program that does not fit, the memory that it needs), `state_bytes_per_chip`; and
      `estimated_cycles`, the compiler's own estimate without collectives and overlap, None if it does not fit. A device is a core
      on TPUs that show both cores of a chip (v2, v3, v7x).
    """
    devices = open_topology(topology)
    hbm = hbm_bytes(devices[0])
    config, parts = stand_in(configs.load(spec), overrides, num_classes=num_classes, devices=devices, memory=hbm)
    traced, _ = parts.trace(config.data.batch_size, config.data.resolution)
    result: dict[str, Any] = {
        "topology": topology,
        "devices": partition.describe_devices(parts.mesh),
        "batch_size": config.data.batch_size,
        "fsdp": config.train.fsdp,
        "hbm_bytes_per_chip": hbm,
    }
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        needed, _ = out_of_memory(str(error))
        return result | {"fits": False, "peak_bytes_per_chip": needed, "estimated_cycles": None}
    memory = compiled.memory_analysis()
    # Arguments that the step returns changed (the state) are counted once.
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return result | {
        "fits": True,
        "peak_bytes_per_chip": kept + memory.temp_size_in_bytes,
        "state_bytes_per_chip": memory.alias_size_in_bytes,
        "estimated_cycles": estimated_cycles(compiled.as_text()),
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
