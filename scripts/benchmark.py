"""Times training or inference of a config on random images of its real shape; no data set is opened.

    python scripts/benchmark.py --mode=train --config=configs/pretrain.py:variant=S/16,dataset=imagenet2012 --batch=8 --json
    python scripts/benchmark.py --mode=infer --config=configs/finetune.py:variant=B/16,dataset=cifar10 --batch=32

Prints median and quartile step time, images/s, time to the first step (from the config; and from the start of the
process), peak memory, FLOPs per image, and on a known accelerator in bf16 the share of its peak. Config overrides as in
vit_jax.main: `--config.model.dtype=float32`, `--config.data.resolution=224`.
"""

import argparse
import concurrent.futures
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vit_jax import config as configs
from vit_jax.main import EXIT_USER_ERROR, parse_command_line, prepare_process
from vit_jax.tools import benchmark
from vit_jax.types import Batch, UserError


def measure(flags: argparse.Namespace, overrides: list[tuple[str, str]]) -> dict:
    """Builds, times and describes one step."""
    import jax
    import numpy as np

    from vit_jax import partition
    from vit_jax.assemble import build_parts, resolve
    from vit_jax.models.build import count_params, init_params
    from vit_jax.tools.flops import count_flops

    began = time.perf_counter()
    config = configs.load(flags.config)
    resolve(config, overrides)
    with config.unlocked():
        config.data.batch_size = flags.batch
        config.model.num_classes = config.model.num_classes or 1000  # the data would say; it is not opened
    total_steps = 10_000  # only the learning rate depends on it
    parts = build_parts(
        config, total_steps, lambda d: configs.steps(d, steps_per_epoch=total_steps / 100, total=total_steps)
    )
    resolution = config.data.resolution
    rng = np.random.default_rng(0)
    batches = [
        Batch(
            image=rng.integers(0, 256, (flags.batch, *resolution, 3), np.uint8),
            label=rng.integers(0, config.model.num_classes, flags.batch).astype(np.int32),
            mask=np.ones(flags.batch, np.float32),
        )
        for _ in range(2)
    ]

    def infer(params, images):
        return parts.forward(params, images).logits

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        if flags.mode == "train":
            compiling = pool.submit(parts.compile, flags.batch, resolution)
        else:
            images = jax.ShapeDtypeStruct(
                batches[0].image.shape, np.uint8, sharding=partition.batch_sharding(parts.mesh)
            )
            traced = jax.jit(infer).trace(parts.abstract.params, images)
            compiling = pool.submit(lambda: (traced.lower().compile(), count_flops(traced.jaxpr) // flags.batch))
        params = init_params(parts.model, jax.random.key(config.seed), resolution)
        state = parts.draw_state(params) if flags.mode == "train" else None
        if state is None:
            params = partition.put_tree(params, partition.param_sharding(params, parts.mesh))
        program, flops = compiling.result()

    def step(i: int):
        nonlocal state
        batch = partition.put_batch(batches[i % 2], parts.mesh)
        if flags.mode == "infer":
            return program(params, batch.image)
        state, metrics = program(state, batch)
        return metrics["loss"]

    jax.block_until_ready(step(0))
    first_step = {
        "time_to_first_step_s": round(time.perf_counter() - began, 3),
        "process_start_to_first_step_s": round(benchmark.process_age_s(), 3),
    }
    times = benchmark.time_steps(step, warmup=3, steps=flags.steps)
    devices = list(parts.mesh.devices.flat)
    return {
        "mode": flags.mode,
        "config": flags.config,
        "overrides": dict(overrides),
        "device": devices[0].device_kind,
        "num_devices": len(devices),
        "batch_size": flags.batch,
        "resolution": list(resolution),
        "dtype": config.model.dtype,
        "num_params": count_params(parts.abstract.params),
        **benchmark.summarize(
            times, batch_size=flags.batch, flops_per_image=flops, devices=devices, dtype=config.model.dtype
        ),
        **first_step,
        "jax": jax.__version__,
    }


def main() -> int:
    """Runs; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--mode", choices=("train", "infer"), required=True)
    parser.add_argument("--config", required=True, help="config file and its arguments")
    parser.add_argument("--batch", type=int, required=True, help="global batch size")
    parser.add_argument("--steps", type=int, default=20, help="timed steps, at least 10")
    parser.add_argument("--json", action="store_true", help="one line of JSON and nothing else")
    try:
        flags, overrides = parse_command_line(sys.argv[1:], parser)
        if flags.steps < 10:
            raise UserError(f"--steps={flags.steps}: quartiles need at least 10 timed steps")
        prepare_process()
        result = measure(flags, overrides)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    if flags.json:
        print(json.dumps(result))
    else:
        width = max(map(len, result))
        print("\n".join(f"{key:<{width}}  {value}" for key, value in result.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
