"""Timing of compiled steps: completion times, quartiles, memory, and the share of an accelerator's peak."""

from __future__ import annotations

import itertools
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

# Dense bf16 peak of one device, FLOP/s, by a part of `device_kind` (vendors' data sheets, without sparsity). The
# first match counts, so longer names precede their prefixes.
PEAK_FLOPS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "A10G": 70e12,
    "L40S": 362e12,
    "L4": 121e12,
    "V100": 125e12,
    "T4": 65e12,
    "TPU v6 lite": 918e12,
    "TPU v5p": 459e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v4": 275e12,
    "TPU v3": 61.5e12,  # per core, because JAX counts a core as a device
    "TPU v2": 22.5e12,
}


def time_steps(step: Callable[[int], Any], *, warmup: int, steps: int) -> list[float]:
    """Times a step in a running pipeline: one step is always in flight, as in training.

    Args:
      step: `step(i)` dispatches step i and returns an array that is ready once the step is done.
      warmup: untimed steps before the first timed one.
      steps: timed steps.

    Returns:
      Seconds between the completions of successive steps.
    """
    done: list[float] = []
    running = step(0)
    for i in range(1, warmup + steps + 1):
        following = step(i)
        jax.block_until_ready(running)
        done.append(time.perf_counter())
        running = following
    jax.block_until_ready(running)
    done.append(time.perf_counter())
    times = [b - a for a, b in itertools.pairwise(done)]
    return times[-steps:]


def summarize(
    times: list[float], *, batch_size: int, flops_per_image: int, devices: list[Any], dtype: str
) -> dict[str, Any]:
    """Median and quartiles of step times, throughput, memory and share of peak.

    `peak_share` is matrix FLOPs per second over the devices' bf16 peak; None for float32, whose peak differs, and
    for devices that `PEAK_FLOPS` does not list.
    """
    lower, median, upper = statistics.quantiles(times, n=4)
    peak = peak_flops(devices[0])
    rate = batch_size / median
    return {
        "timed_steps": len(times),
        "step_s_median": round(median, 6),
        "step_s_quartiles": [round(lower, 6), round(upper, 6)],
        "images_per_s": round(rate, 2),
        "flops_per_image": flops_per_image,
        "peak_share": round(rate * flops_per_image / (peak * len(devices)), 4)
        if peak and dtype == "bfloat16"
        else None,
        "peak_memory_bytes": peak_memory_bytes(devices),
    }


def peak_flops(device: Any) -> float | None:
    """Dense bf16 peak of a device, FLOP/s; None for one that `PEAK_FLOPS` does not list."""
    return next((value for name, value in PEAK_FLOPS.items() if name in device.device_kind), None)


def peak_memory_bytes(devices: list[Any]) -> int:
    """Largest memory in use so far: on the fullest device if the backend reports it, else of this process."""
    stats = [device.memory_stats() or {} for device in devices]
    peak = max(s.get("peak_bytes_in_use", 0) for s in stats)
    return peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
