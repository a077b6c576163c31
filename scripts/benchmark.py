"""Times training or inference of a config on random images of its real shape, without its data set; or its input pipeline.

    python scripts/benchmark.py --mode=train --config=configs/pretrain.py:variant=S/16,dataset=imagenet2012 --batch=8 --json
    python scripts/benchmark.py --mode=infer --config=configs/finetune.py:variant=B/16,dataset=cifar10 --batch=32
    python scripts/benchmark.py --mode=data --config=configs/pretrain.py:dataset=imagenet2012 --batch=256 --json
    python scripts/benchmark.py --mode=data --config=configs/pretrain.py:dataset=imagenet2012 --batch=64 --jpegs=2000
    python scripts/benchmark.py --mode=data --config=configs/pretrain.py:dataset=imagenet2012 --batch=64 --jpegs=2000 \\
        --steps=50 --compare --peer-python=peers/bin/python

`--mode=data` reads, decodes, augments and batches the config's training split (or `--jpegs` photographs of 500x375, cut from
two that scikit-learn ships) and prints images/s, images per CPU-second, time to the first batch and memory. `--compare`
measures ours, tf.data (`decode_and_crop_jpeg`, bilinear without antialias) and a PyTorch DataLoader with Pillow in turns, and
prints a Markdown table of medians; the two live in an environment of their own (requirements-benchmark.txt).

The other modes print median and quartile step time, images/s, time to the first step (from the config; and from the start of the
process), peak memory, FLOPs per image, and on a known accelerator in bf16 the share of its peak. Config overrides as in
vit_jax.main: `--config.model.dtype=float32`, `--config.data.resolution=224`.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import json
import logging
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vit_jax import config as configs
from vit_jax.bench import peers, throughput, timing
from vit_jax.main import parse_command_line
from vit_jax.process import first_paragraph, prepare_process, reports_user_errors
from vit_jax.types import Batch, UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from vit_jax.assemble import Parts


def load_config(flags: argparse.Namespace, overrides: list[tuple[str, str]]) -> ConfigDict:
    """The config, resolved, with the batch size asked for; 1,000 classes where only the data would say how many."""
    from vit_jax.assemble import resolve

    config = configs.load(flags.config)
    resolve(config, overrides)
    with config.unlocked():
        config.data.batch_size = flags.batch
        config.model.num_classes = config.model.num_classes or 1000
    return config


def random_batches(config: ConfigDict) -> list[Batch]:
    """Two batches of noise of the config's shape, in host memory; each step moves one to the device, as training does."""
    import numpy as np

    rng = np.random.default_rng(0)
    size = config.data.batch_size
    return [
        Batch(
            image=rng.integers(0, 256, (size, *config.data.resolution, 3), np.uint8),
            target=rng.integers(0, config.model.num_classes, size).astype(np.int32),
            mask=np.ones(size, np.float32),
        )
        for _ in range(2)
    ]


def build_step(mode: str, config: ConfigDict, parts: Parts) -> tuple[Callable[[int], Any], int]:
    """Compiles while the parameters are drawn; returns `step(i)`, which dispatches one step, and FLOPs per image."""
    import jax
    import numpy as np

    from vit_jax import partition
    from vit_jax.bench.flops import count_flops
    from vit_jax.models.build import init_params

    size, resolution, batches = config.data.batch_size, config.data.resolution, random_batches(config)

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

    def step(i: int) -> Any:
        nonlocal state
        batch = partition.put_batch(batches[i % 2], parts.mesh)
        if not train:
            return program(state, batch.image)
        state, metrics = program(state, batch)
        return metrics["loss"]

    return step, flops


def measure(flags: argparse.Namespace, overrides: list[tuple[str, str]]) -> dict[str, Any]:
    """Builds, times and describes one step."""
    import jax

    from vit_jax.assemble import build_parts
    from vit_jax.models.build import count_params

    began = time.perf_counter()
    config = load_config(flags, overrides)
    total_steps = 10_000  # only the learning rate depends on it
    to_steps = functools.partial(configs.steps, steps_per_epoch=total_steps / 100, total=total_steps)
    parts = build_parts(config, total_steps, to_steps)
    step, flops = build_step(flags.mode, config, parts)
    jax.block_until_ready(step(0))
    first_step = {
        "time_to_first_step_s": round(time.perf_counter() - began, 3),
        "process_start_to_first_step_s": round(throughput.process_age_s(), 3),
    }
    times = timing.time_steps(step, warmup=3, steps=flags.steps)
    devices = list(parts.mesh.devices.flat)
    return {
        "mode": flags.mode,
        "config": flags.config,
        "overrides": dict(overrides),
        "device": devices[0].device_kind,
        "num_devices": len(devices),
        "batch_size": flags.batch,
        "resolution": list(config.data.resolution),
        "dtype": config.model.dtype,
        "num_params": count_params(parts.abstract.params),
        **timing.summarize(
            times, batch_size=flags.batch, flops_per_image=flops, devices=devices, dtype=config.model.dtype
        ),
        **first_step,
        "jax": jax.__version__,
    }


def measure_data(flags: argparse.Namespace, overrides: list[tuple[str, str]], folder: str) -> dict[str, Any]:
    """Runs the input pipeline of a config, and nothing else."""
    from vit_jax.assemble import resolve
    from vit_jax.bench.throughput import measure_batches, write_photographs
    from vit_jax.data.build import TrainData

    config = configs.load(flags.config)
    resolve(config, overrides)
    with config.unlocked():
        config.data.batch_size = flags.batch
        if flags.jpegs:
            write_photographs(Path(folder), flags.jpegs)
            config.data.update({"dataset": folder, "split": "train"})
    began = time.perf_counter()
    data = configs.build(TrainData, config.data)
    source = data.open()
    loader = data.batches(source, seed=0, start_step=0, process_index=0, process_count=1, corrupt=())
    try:
        found = measure_batches(loader, batch_size=flags.batch, batches=flags.steps, began=began, warmup=flags.warmup)
    finally:
        loader.close()
    described = {"mode": "data", "config": flags.config, "overrides": dict(overrides), "dataset": config.data.dataset}
    if flags.jpegs:
        described["dataset"] = f"{flags.jpegs} photographs of 500x375"
    shape = {"recipe": config.data.recipe, "resolution": list(config.data.resolution), "batch_size": flags.batch}
    threads = {"workers": config.data.workers, "threads": config.data.threads}
    return described | shape | threads | found


def compare(flags: argparse.Namespace, overrides: list[tuple[str, str]], folder: str) -> dict[str, dict[str, float]]:
    """Ours, tf.data and PyTorch on the same photographs, in turns; equally many threads or workers."""
    from vit_jax.assemble import resolve
    from vit_jax.bench.throughput import write_photographs
    from vit_jax.data.prepare.pack import pack

    config = configs.load(flags.config)
    resolve(config, overrides)
    data = config.data
    if data.recipe != "pretrain" or data.resolution[0] != data.resolution[1]:
        raise UserError("--compare: the peers know the recipe `pretrain` at a square resolution only")
    peers.check_python(flags.peer_python)
    photographs, packed, records = (f"{folder}/{name}" for name in ("photographs", "packed", "photographs.tfrecord"))
    write_photographs(Path(photographs), flags.jpegs)
    pack(photographs, packed)
    epoch = math.ceil(flags.jpegs / flags.batch)
    shape = [f"--batch={flags.batch}", f"--steps={flags.steps}", f"--warmup={epoch}"]
    this = [sys.executable, __file__, "--mode=data", f"--config={flags.config}", "--json", *shape]
    this += [f"--config.{key}={value}" for key, value in overrides]
    peer = [
        flags.peer_python,
        str(Path(peers.__file__).with_name("peer_pipelines.py")),
        f"--folder={photographs}",
        *shape,
    ]
    peer += [f"--size={data.resolution[0]}", f"--threads={data.workers or data.threads}"]
    subprocess.run([*peer, "--pipeline=tf.data", f"--records={records}"], check=True, capture_output=True)
    early = ["--warmup=0", f"--steps={max(10, min(flags.steps, epoch - 4))}"]
    commands = {
        "ours, ArrayRecord": [*this, f"--config.data.dataset={packed}", "--config.data.split=train"],
        "ours, files": [*this, f"--config.data.dataset={photographs}", "--config.data.split=train"],
        "ours, files, first epoch": [
            *this,
            *early,
            f"--config.data.dataset={photographs}",
            "--config.data.split=train",
        ],
        "tf.data, files": [*peer, "--pipeline=tf.data"],
        "tf.data, files, AUTOTUNE": [*peer, "--pipeline=tf.data", "--autotune"],
        "tf.data, TFRecord": [*peer, "--pipeline=tf.data", f"--records={records}"],
        "PyTorch, Pillow, files": [*peer, "--pipeline=pytorch"],
    }
    return peers.measure_in_turns(commands, flags.rounds)


@reports_user_errors
def main() -> int:
    """Runs; returns the exit code."""
    parser = argparse.ArgumentParser(description=first_paragraph(__doc__), allow_abbrev=False)
    parser.add_argument("--mode", choices=("train", "infer", "data"), required=True)
    parser.add_argument("--config", required=True, help="config file and its arguments")
    parser.add_argument("--batch", type=int, required=True, help="global batch size")
    parser.add_argument("--steps", type=int, default=20, help="timed steps, at least 10")
    parser.add_argument("--warmup", type=int, default=3, help="with --mode=data: batches before those that are timed")
    parser.add_argument("--jpegs", type=int, default=0, help="with --mode=data: photographs to make and read instead")
    parser.add_argument("--compare", action="store_true", help="with --jpegs: beside tf.data and PyTorch")
    parser.add_argument("--peer-python", default="", help="with --compare: the interpreter that has them")
    parser.add_argument(
        "--rounds", type=int, default=5, help="with --compare: runs of each, of which the median counts"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON and nothing else")
    flags, overrides = parse_command_line(sys.argv[1:], parser)
    if flags.steps < 10:
        raise UserError(f"--steps={flags.steps}: quartiles need at least 10 timed steps")
    if flags.jpegs and flags.mode != "data":
        raise UserError(f"--jpegs={flags.jpegs} goes with --mode=data; {flags.mode} makes its images in memory")
    if flags.compare and not flags.jpegs:
        raise UserError("--compare goes with --mode=data and --jpegs=N, the photographs that all of them read")
    if flags.compare:
        with tempfile.TemporaryDirectory(prefix="vit_jax_compare_") as folder:
            medians = compare(flags, overrides, folder)
        print(json.dumps(medians) if flags.json else peers.to_markdown(medians))
        return 0
    if flags.mode == "data":
        with tempfile.TemporaryDirectory(prefix="vit_jax_jpegs_") as folder:
            result = measure_data(flags, overrides, folder)
            # Readers are a few batches ahead and will find the folder gone.
            logging.getLogger("vit_jax.data.formats.folders").setLevel(logging.CRITICAL)
    else:
        prepare_process()
        result = measure(flags, overrides)
    if flags.json:
        print(json.dumps(result))
    else:
        width = max(map(len, result))
        print("\n".join(f"{key:<{width}}  {value}" for key, value in result.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
