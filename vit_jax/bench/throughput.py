"""Throughput of an input pipeline: images per second and per CPU-second, over this process and its workers."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SIZE = (375, 500)  # (h, w) of a photograph, the most common in ImageNet


def process_age_s() -> float:
    """Seconds since this process started, including interpreter start-up and imports (on Linux; elsewhere since Python began)."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, AttributeError):
        return time.process_time()


class Usage(NamedTuple):
    """The resources that this process and all its descendants have used.

    Args:
      cpu_s: CPU time of all threads.
      memory_bytes: resident memory now; a page that several processes share counts once.
      peak_bytes: sum of the processes' largest resident sizes, each including shared pages.
    """

    cpu_s: float
    memory_bytes: int
    peak_bytes: int


def measure_usage() -> Usage:
    """Reads Linux's /proc. On other systems only this process counts, and its peak stands for the memory."""
    try:
        family = _list_family()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return Usage(time.process_time(), peak, peak)
    cpu_s, memory, peak = time.process_time(), 0, 0
    for pid in family:
        try:
            if pid != os.getpid():
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                cpu_s += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            memory += _read_kilobytes(pid, "smaps_rollup", "Pss:")
            peak += _read_kilobytes(pid, "status", "VmHWM:")
        except (FileNotFoundError, ProcessLookupError):  # the process has just ended
            continue
    return Usage(cpu_s, memory, peak)


def _list_family() -> list[int]:
    """This process and its descendants."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
    family = [os.getpid()]
    for member in family:  # the list grows during the loop
        family += [pid for pid, parent in parents.items() if parent == member]
    return family


def _read_kilobytes(pid: int, file: str, key: str) -> int:
    """The value of a line such as `VmHWM:   1234 kB`, in bytes; 0 if it is missing (the process is about to end)."""
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return 0


def measure_batches(
    loader: Iterator[Any], *, batch_size: int, batches: int, began: float, warmup: int = 3
) -> dict[str, Any]:
    """Draws batches as fast as they come.

    Args:
      loader: yields batches; the caller closes it.
      batch_size: examples per batch.
      batches: number of timed batches; at least 10.
      began: `time.perf_counter()` at the start of building the pipeline.
      warmup: batches drawn after the first one and before the timed ones.

    Returns:
      images_per_s, images_per_cpu_s, cpu_ms_per_image, time_to_first_batch_s, images; and the memory of the processes after a
      tenth of the batches and after the last, and its peak. See `Usage`.
    """
    next(loader)
    first, age = time.perf_counter() - began, process_age_s()
    for _ in range(warmup):
        next(loader)
    start, wall = measure_usage(), time.perf_counter()
    for _ in range(batches // 10):
        next(loader)
    early = measure_usage()
    for _ in range(batches - batches // 10):
        next(loader)
    wall, end = time.perf_counter() - wall, measure_usage()
    images, cpu_s = batches * batch_size, end.cpu_s - start.cpu_s
    return {
        "images": images,
        "images_per_s": round(images / wall, 1),
        "images_per_cpu_s": round(images / cpu_s, 1),
        "cpu_ms_per_image": round(1e3 * cpu_s / images, 3),
        "time_to_first_batch_s": round(first, 3),
        "process_start_to_first_batch_s": round(age, 3),
        "early_memory_bytes": early.memory_bytes,
        "memory_bytes": end.memory_bytes,
        "peak_memory_bytes": end.peak_bytes,
    }


def write_photographs(folder: Path, count: int, *, seed: int = 0, quality: int = 90) -> None:
    """Writes JPEGs of 500x375 into `train/0` and `train/1`: random parts of scikit-learn's two photographs."""
    import PIL.Image
    from sklearn.datasets import load_sample_images

    rng, photographs = np.random.default_rng(seed), load_sample_images().images
    for label in range(len(photographs)):
        (folder / "train" / str(label)).mkdir(parents=True)
    for i in range(count):
        label = i % len(photographs)
        picture = PIL.Image.fromarray(photographs[label])
        scale = rng.uniform(0.8, 1.0)
        w, h = int(SIZE[1] * scale), int(SIZE[0] * scale)
        left, top = int(rng.integers(picture.width - w + 1)), int(rng.integers(picture.height - h + 1))
        part = picture.crop((left, top, left + w, top + h)).resize((SIZE[1], SIZE[0]), PIL.Image.Resampling.BICUBIC)
        part.save(folder / "train" / str(label) / f"{i:06}.jpg", quality=quality)
