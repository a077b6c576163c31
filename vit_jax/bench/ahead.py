"""Compiles a config's training step for devices that are not here, and reports what the compiler knows about it.

All times are estimates: a TPU's compiler gives cycles for each operation, without collectives and without overlap, and no row has
been compared with a real chip. XLA for GPUs gives no time; the bytes that its kernels move stand for it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import math
import os
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from vit_jax import config as configs
from vit_jax import partition
from vit_jax.bench.plan import count_examples
from vit_jax.bench.program import Program
from vit_jax.bench.timing import peak_flops
from vit_jax.bench.topology import GPU_OPTIONS, hbm_bytes, is_gpu, largest_batch, memory_needed, open_topology
from vit_jax.config import Config
from vit_jax.run.assemble import Parts, kept_bytes
from vit_jax.run.job import stand_in_settled

# Multiply-adds, counted as two operations, of a cycle of a device: its matrix units of 128 x 128, on v6e of 256 x 256.
FLOPS_PER_CYCLE = {"v2": 2**15, "v3": 2**16, "v4": 2**18, "v5 lite": 2**17, "v6 lite": 2**19, "v5": 2**18}
# Devices of a chip, and TensorCores of a device, where they are not one.
DEVICES_PER_CHIP = {"v2": 2, "v3": 2}
CORES_PER_DEVICE = {"v4": 2, "v5 lite": 1, "v5": 2}  # the first that is in a device's kind counts
# {(width, depth, data): TPUv3-core-days}: arXiv 2010.11929, table 2.
PAPER_CORE_DAYS = {
    (1280, 32, "jft_300m"): 2500,
    (1024, 24, "jft_300m"): 680,
    (1024, 24, "imagenet21k"): 230,
}
# The keys that a batch size other than the config's keeps.
SETTLED = (("train", "fsdp"), ("train", "accumulation"), ("model", "scan"), ("model", "remat"))
GPU_BANDWIDTH = 3.35e12  # bytes a second of an H100's memory
FORMAT = 1  # of the cached values

Say = Callable[[str], None]


def compile_for(
    spec: str,
    overrides: list[tuple[str, str]],
    topology: str,
    *,
    num_classes: int,
    model_flops: int = 0,
    cycles: bool = False,
    largest: bool = False,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Compiles the training step of a config for a topology.

    Args:
      spec, overrides: the config.
      topology: see `open_topology`.
      num_classes: used where the config leaves it to the data.
      model_flops: floating-point operations to train on an image, without recomputation.
      cycles: whether to compile to the end if the step fits, which takes minutes for a TPU. For GPUs it is always done.
      largest: whether to look for the largest batch that fits.
      say: receives a line before each part of the work.

    Returns:
      JSON values, as docs/scale.md lists them. A device is a core on TPUs that show both cores of a chip (v2, v3, v7x).
    """
    devices = open_topology(topology)
    hbm, gpu = hbm_bytes(devices[0]), is_gpu(devices[0])
    make = functools.partial(stand_in_settled, configs.load(spec), num_classes=num_classes, devices=devices, memory=hbm)
    say("building the step and choosing what memory asks for")
    config, parts, decisions = make(overrides)
    size, resolution = config.data.batch_size, config.data.resolution
    traced, flops = parts.trace(size, resolution)
    lowered = traced.lower(lowering_platforms=("cuda" if gpu else "tpu",))
    find = functools.partial(cached, key=key_of(lowered.as_text(), topology))
    needed = None
    if not gpu:
        say("asking the compiler for the memory that the step needs")
        needed = find("needed", lambda: memory_needed(parts, size, resolution, hbm))
    whole = None
    if gpu or (cycles and needed is not None and needed <= hbm):
        say("compiling to the end, which takes minutes")
        whole = find("whole", lambda: compile_whole(lowered, gpu))
    peak = whole["peak"] if whole else needed
    assert peak is not None
    state, gradients = map(_bytes_of_a_shard, (parts.abstract, parts.abstract.params))
    result: dict[str, Any] = {
        "topology": topology,
        "devices": partition.describe_devices(parts.mesh),
        "batch_size": size,
        "fsdp": config.train.fsdp,
        "settled": [list(decision) for decision in decisions],
        "fits": peak <= hbm,
        "hbm_bytes_per_chip": hbm,
        "peak_bytes_per_chip": peak,
        "peak_is": "taken by the compiled program" if whole else "the least that the compiler needs",
        "missing_bytes_per_chip": max(peak - hbm, 0),
        "memory_by_kind": memory_by_kind(config, peak, state, gradients, len(devices)),
        "state_bytes_per_chip": state,
        "flops_per_device": flops * size // len(devices),
        "largest_batch": None,
        "estimated_cycles": None,
    }
    if largest and needed is not None:
        say("looking for the largest batch")
        result["largest_batch"] = _largest(make, overrides, config, len(devices), hbm)
    return result | (estimates(whole, config, parts, model_flops) if whole else {})


def _largest(make: Callable[..., Any], overrides: list[tuple[str, str]], config: Config, devices: int, hbm: int) -> int:
    """The largest batch that fits with the choices made for the config's own."""
    fixed = [(f"{section}.{key}", str(config[section][key])) for section, key in SETTLED if key in config[section]]

    def needed(size: int) -> int:
        sized, parts, _ = make([*overrides, *fixed, ("data.batch_size", str(size))])
        return memory_needed(parts, size, sized.data.resolution, hbm)

    return largest_batch(needed, devices * config.train.accumulation, config.data.batch_size, hbm)


def _bytes_of_a_shard(tree: Any) -> int:
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def memory_by_kind(config: Config, peak: int, state: int, gradients: int, devices: int) -> dict[str, int]:
    """{state, gradients, activations, temporaries: bytes of a device}; the temporaries are all that the others leave of the
    peak. The activations are those that the trace keeps for the backward pass, without the padding of a compiler."""
    scan, remat = config.model.get("scan") or False, config.model.get("remat") or "none"
    images = config.data.batch_size // devices // config.train.accumulation
    kept = images * kept_bytes(config, scan=scan, remat=remat)
    kinds = {"state": state, "gradients": gradients, "activations": min(kept, max(peak - state - gradients, 0))}
    return kinds | {"temporaries": max(peak - sum(kinds.values()), 0)}


def compile_whole(lowered: jax.stages.Lowered, gpu: bool) -> dict[str, Any]:
    """Compiles a step to the end: its memory, cycles, collectives and traffic."""
    compiled = lowered.compile(compiler_options=GPU_OPTIONS if gpu else None)
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None
    assert text is not None
    program = Program(text)
    # On GPUs the statistics leave the peak out.
    peak = memory.peak_memory_in_bytes or memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return {
        "peak": peak,
        "cycles": program.cycles(),
        "collectives": [collective._asdict() for collective in program.collectives()],
        "traffic": program.traffic(),
        "kernels": program.kernels(),
    }


def estimates(whole: dict[str, Any], config: Config, parts: Parts, model_flops: int) -> dict[str, Any]:
    """The time of a step and of the schedule that follow from a compiled program."""
    mesh, size = parts.mesh, config.data.batch_size
    device = mesh.devices.flat[0]
    peak, useful = peak_flops(device), size * model_flops / mesh.size
    result: dict[str, Any] = {"collectives": whole["collectives"]}
    if is_gpu(device):
        moved = sum(whole["traffic"].values())
        result |= {"bytes_moved": moved, "bytes_moved_by_part": whole["traffic"], "kernels": whole["kernels"]}
        step_s = moved / GPU_BANDWIDTH
    else:
        cycles = sum(whole["cycles"].values())
        result |= {"estimated_cycles": cycles, "cycles_by_part": whole["cycles"]}
        step_s = cycles * of_kind(FLOPS_PER_CYCLE, device) / peak if peak else 0.0
    if not step_s or not peak:
        return result
    result |= {"estimated_step_s": step_s, "estimated_mfu": useful / step_s / peak}
    examples = count_examples(config)
    if examples is None:
        return result
    steps = configs.steps(config.train.duration, steps_per_epoch=examples / size)
    hours = steps * step_s / 3600 * mesh.size
    chips, cores = of_kind(DEVICES_PER_CHIP, device, 1), of_kind(CORES_PER_DEVICE, device, 1)
    paper = PAPER_CORE_DAYS.get((config.model.get("width"), config.model.get("depth"), config.data.dataset))
    return result | {
        "steps": steps,
        "estimated_chip_hours": hours / chips,
        "estimated_core_days": None if is_gpu(device) else hours * cores / 24,
        "paper_tpuv3_core_days": paper,
    }


def of_kind(table: Mapping[str, int], device: jax.Device, default: int = 0) -> int:
    """The value of a table for a device; the first key in its kind counts."""
    return next((value for key, value in table.items() if key in device.device_kind), default)


def key_of(text: str, topology: str) -> str:
    """A hash of a program, its devices and the compilers' versions."""
    packages = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin")
    versions = [(name, metadata.version(name)) for name in packages if importlib.util.find_spec(name.replace("-", "_"))]
    return hashlib.sha256(f"{FORMAT} {topology} {versions}\n{text}".encode()).hexdigest()[:32]


def cached(name: str, compute: Callable[[], Any], key: str) -> Any:
    """The result of `compute`, a JSON value, kept in the user's cache folder; VIT_JAX_COMPILATION_CACHE=0 switches that off."""
    home = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    file = Path(home, "vit_jax", "plans", f"{key}.{name}.json")
    if os.environ.get("VIT_JAX_COMPILATION_CACHE") == "0" or home.startswith("~"):
        return compute()
    with contextlib.suppress(OSError, ValueError):
        return json.loads(file.read_text())
    value = compute()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(value))
        partial.replace(file)
    return value
