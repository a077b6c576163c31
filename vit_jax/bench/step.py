"""Times a training or inference step of a config on random images of its real shape, without its data set."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vit_jax import config as configs
from vit_jax import partition
from vit_jax.bench import throughput, timing
from vit_jax.config import Config
from vit_jax.flops import count_flops
from vit_jax.memory import return_freed_memory
from vit_jax.models.build import count_params, init_params
from vit_jax.run.assemble import Parts
from vit_jax.run.job import stand_in
from vit_jax.targets import Boxes, BoxLabel, ClassId, Target
from vit_jax.types import Batch

OBJECTS = 7  # of an image: COCO's mean


def random_batches(config: Config, target: Target | None = None) -> list[Batch]:
    """Two batches of noise of the config's shape, in host memory; each step moves one to the device, as training does.

    Args:
      config: the settled config.
      target: the targets of the data; a class per image by default.
    """
    rng = np.random.default_rng(0)
    size = config.data.batch_size
    return [
        Batch(
            image=rng.integers(0, 256, (size, *config.data.resolution, 3), np.uint8),
            target=random_target(target or ClassId(config.model.num_classes), size, rng),
            mask=np.ones(size, np.float32),
        )
        for _ in range(2)
    ]


def random_target(target: Target, size: int, rng: np.random.Generator) -> Any:
    """A batch's target: a class, or `OBJECTS` objects, for each image; all empty for other kinds, whose losses cost the same."""
    arrays = target.empty(size)
    if isinstance(target, ClassId):
        return rng.integers(0, target.num_classes, size).astype(np.int32)
    if isinstance(target, Boxes):
        for row in range(size):
            corners = np.sort(rng.random((OBJECTS, 2, 2), np.float32), axis=1).reshape(OBJECTS, 4)
            kinds, counts = rng.integers(0, target.num_classes, OBJECTS), np.ones(OBJECTS, np.float32)
            target.put(arrays, row, BoxLabel(corners, kinds, counts, row))
    return arrays


def build_step(mode: str, config: Config, parts: Parts) -> tuple[Callable[[int], Any], int]:
    """Compiles while the parameters are drawn; returns `step(i)`, which dispatches one step, and the FLOPs per image."""
    size, resolution, batches = config.data.batch_size, config.data.resolution, random_batches(config, parts.target)

    def compile_infer() -> tuple[Any, int]:
        sharding = partition.batch_sharding(parts.mesh)
        images = jax.ShapeDtypeStruct((size, *resolution, 3), np.uint8, sharding=sharding)
        traced = jax.jit(lambda p, x: parts.forward(p, x).logits).trace(parts.abstract.params, images)
        return traced.lower().compile(), count_flops(traced.jaxpr) // size

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        train = mode == "train"
        compiling = pool.submit(parts.compile, size, resolution) if train else pool.submit(compile_infer)
        params = init_params(parts.model, jax.random.key(config.seed), resolution)
        if train:
            state: Any = parts.draw_state(params)
        else:
            state = partition.put_tree(params, partition.param_sharding(params, parts.mesh))
        program, flops = compiling.result()
    del params
    return_freed_memory()

    def step(i: int) -> Any:
        nonlocal state
        batch = partition.put_batch(batches[i % 2], parts.mesh)
        if not train:
            return program(state, batch.image)
        state, metrics = program(state, batch)
        return metrics["loss"]

    return step, flops


def measure_step(
    mode: str, spec: str, overrides: list[tuple[str, str]], *, batch_size: int, steps: int = 20
) -> dict[str, Any]:
    """Builds, times and describes one step of training (`mode` train) or of inference (infer)."""
    began = time.perf_counter()
    # More micro-batches would fit any batch into memory, and `--batches=8+` would not end.
    sized = [("train.accumulation", "1"), *overrides, ("data.batch_size", str(batch_size))]
    config, parts = stand_in(configs.load(spec), sized, num_classes=1000)
    step, flops = build_step(mode, config, parts)
    jax.block_until_ready(step(0))
    first_step = {
        "time_to_first_step_s": round(time.perf_counter() - began, 3),
        "process_start_to_first_step_s": round(throughput.process_age_s(), 3),
    }
    times = timing.time_steps(step, warmup=3, steps=steps)
    devices = list(parts.mesh.devices.flat)
    return {
        "mode": mode,
        "config": spec,
        "overrides": dict(overrides),
        "device": devices[0].device_kind,
        "num_devices": len(devices),
        "batch_size": batch_size,
        "resolution": list(config.data.resolution),
        "dtype": config.model.dtype,
        "remat": config.model.get("remat"),
        "num_params": count_params(parts.abstract.params),
        **timing.summarize(
            times, batch_size=batch_size, flops_per_image=flops, devices=devices, dtype=config.model.dtype
        ),
        **first_step,
        "jax": jax.__version__,
    }
