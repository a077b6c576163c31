"""Throughput of an input pipeline: images a second, and a second of all cores' work, of this process and its workers.

Called by: scripts/benchmark.py.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

WARMUP_BATCHES = 3
SIZE = (375, 500)  # of a photograph, (h, w): ImageNet's most common


def measure_batches(loader: Iterator[Any], *, batch_size: int, batches: int, began: float) -> dict[str, Any]:
    """Draws batches as fast as they come.

    Args:
      loader: yields batches; closed by the caller, after which its workers' CPU time counts too.
      batch_size: examples in each.
      batches: that count, after the first few.
      began: `time.perf_counter()` when the pipeline began to be built.

    Returns:
      images_per_s, images_per_cpu_s, cpu_ms_per_image, time_to_first_batch_s, peak_memory_bytes, images.
    """
    next(loader)
    first = time.perf_counter() - began
    for _ in range(WARMUP_BATCHES):
        next(loader)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(batches):
        next(loader)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    images = batches * batch_size
    return {
        "images": images,
        "images_per_s": round(images / wall, 1),
        "images_per_cpu_s": round(images / cpu, 1),
        "cpu_ms_per_image": round(1e3 * cpu / images, 3),
        "time_to_first_batch_s": round(first, 3),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
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
