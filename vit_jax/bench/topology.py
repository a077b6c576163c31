"""Devices that are not here, to compile for, and the memory that a training step needs on a TPU.

libtpu, TPUs' compiler, is a package of PyPI and needs no TPU. It knows how much memory a step needs before it generates code, so
that answer takes seconds. XLA's compiler for CUDA GPUs needs no GPU either, nor does cuDNN's attention in it, which
asks cuDNN for its version alone.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from vit_jax import partition
from vit_jax.run.assemble import Parts
from vit_jax.types import Batch, TrainState, UserError

INSTALL = "pip install 'vit_jax[tpu-aot]'"
INSTALL_CUDA = "pip install 'vit_jax[gpu-aot]'"
EXAMPLES = "v5e:4x4, v4:4x4x4, v5e:4x4,slices=2 or h100:8"
# XLA's description of a GPU, and the bytes of its memory that JAX takes by default.
GPUS = {
    "h100": (
        """
        platform_name: "CUDA"
        device_description_str: "NVIDIA H100 80GB HBM3"
        dnn_version_info { major: 9 minor: 10 }
        runtime_version { major: 12 minor: 9 patch: 0 }
        gpu_device_info {
          threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
          shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
          block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
          memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 84929347584
          shared_memory_per_block_optin: 232448 cuda_compute_capability { major: 9 } registers_per_core_limit: 65536
          registers_per_block_limit: 65536
        }
        """,
        84929347584 * 3 // 4,
    ),
}
# Without a GPU nothing can be timed to tune it, and Triton finds no tiles for some of L/16's products.
GPU_OPTIONS: dict[str, str | bool] = {"xla_gpu_autotune_level": "0", "xla_gpu_enable_triton_gemm": False}
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
      text: a TPU's generation and the arrangement of its chips, `v5e:4x4`; `,slices=2` for several of them. Or GPUs of one
        machine, `h100:8`.

    Raises:
      UserError: the compiler is missing, or does not know the topology.
    """
    from jax.experimental import topologies

    if gpus := re.fullmatch(r"(\w+):([1-9]\d*)", text):
        return _open_gpus(text, gpus[1], int(gpus[2]))
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


def _open_gpus(text: str, kind: str, count: int) -> Sequence[jax.Device]:
    """See `open_topology`."""
    from jax.experimental import topologies

    if kind not in GPUS:
        raise UserError(f"--topology={text}: the GPUs are {', '.join(GPUS)}; expected a topology like {EXAMPLES}")
    if not all(map(_is_installed, ("jax_cuda12_plugin", "nvidia.cudnn"))):
        raise UserError(
            f"--topology={text} needs XLA's compiler for CUDA GPUs and cuDNN, which are not installed; {INSTALL_CUDA} "
            "(1.7 GB, no driver)"
        )
    jax.devices()  # registers JAX's plugins
    options = {"topology": f"1x1x{count}", "target_config": GPUS[kind][0]}
    return topologies.get_topology_desc(platform="cuda", topology_name=kind, **options).devices


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of the package that the module lies in
        return False


def is_gpu(device: jax.Device) -> bool:
    """Whether a device of a topology is a GPU."""
    return device.platform in ("gpu", "cuda")


def hbm_bytes(device: jax.Device) -> int:
    """Memory that a program may use on a device of a topology. A TPU's compiler states it when it refuses an array of 512 GB."""
    if is_gpu(device):
        return GPUS[next(kind for kind in GPUS if kind in device.device_kind.lower())][1]
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


def largest_batch(needed: Callable[[int], int], unit: int, first: int, memory: int) -> int:
    """The largest batch that fits, to a 32nd, by bisection; 0 if none does.

    Args:
      needed: batch size -> bytes that its step needs on a device.
      unit: batch sizes are its multiples.
      first: the size that is tried first.
      memory: bytes of a device.
    """
    low, high, at = 0, 0, max(first // unit, 1)  # in units
    while not high or high - low > max(1, low // 32):
        low, high = (at, high) if needed(at * unit) <= memory else (low, at)
        at = (low + high) // 2 if high else 2 * low
    return low * unit
