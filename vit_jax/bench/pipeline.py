"""Times the input pipeline of a config, alone or beside tf.data's and PyTorch's on the same photographs."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from vit_jax import config as configs
from vit_jax.bench import peers
from vit_jax.bench.throughput import measure_batches, write_photographs
from vit_jax.data.build import TrainData
from vit_jax.data.prepare.pack import pack
from vit_jax.resolve import resolve
from vit_jax.run.schema import SCHEMA
from vit_jax.types import UserError


def measure_data(
    spec: str, overrides: list[tuple[str, str]], *, batch_size: int, steps: int, warmup: int = 3, jpegs: int = 0
) -> dict[str, Any]:
    """Runs only the input pipeline of a config, on its data set or on `jpegs` photographs made for the measurement."""
    with tempfile.TemporaryDirectory(prefix="vit_jax_jpegs_") as folder:
        figures = _measure_data(spec, overrides, batch_size, steps, warmup, jpegs, folder)
        # Readers work a few batches ahead and will find the folder gone.
        logging.getLogger("vit_jax.data.formats.folders").setLevel(logging.CRITICAL)
    return figures


def _measure_data(
    spec: str,
    overrides: list[tuple[str, str]],
    batch_size: int,
    steps: int,
    warmup: int,
    jpegs: int,
    folder: str,
) -> dict[str, Any]:
    asked = [*overrides, ("data.batch_size", str(batch_size))]
    if jpegs:
        write_photographs(Path(folder), jpegs)
        asked += [("data.dataset", folder), ("data.split", "train")]
    config = resolve(configs.load(spec), SCHEMA, asked)
    began = time.perf_counter()
    data = configs.build(TrainData, config.data)
    source = data.open()
    loader = data.batches(source, seed=0, start_step=0, process_index=0, process_count=1, corrupt=())
    try:
        figures = measure_batches(loader, batch_size=batch_size, batches=steps, began=began, warmup=warmup)
    finally:
        loader.close()
    described = {"mode": "data", "config": spec, "overrides": dict(overrides), "dataset": config.data.dataset}
    if jpegs:
        described["dataset"] = f"{jpegs} photographs of 500x375"
    shape = {"recipe": config.data.recipe, "resolution": list(config.data.resolution), "batch_size": batch_size}
    threads = {"workers": config.data.workers, "threads": config.data.threads}
    return described | shape | threads | figures


def compare(
    spec: str,
    overrides: list[tuple[str, str]],
    *,
    batch_size: int,
    steps: int,
    jpegs: int,
    peer_python: str,
    rounds: int = 5,
) -> dict[str, dict[str, float]]:
    """Measures vit_jax, tf.data and PyTorch on the same photographs, in turns, with equally many threads or workers."""
    with tempfile.TemporaryDirectory(prefix="vit_jax_compare_") as folder:
        commands = compared(spec, overrides, batch_size, steps, jpegs, peer_python, folder)
        return peers.measure_in_turns(commands, rounds)


def compared(
    spec: str,
    overrides: list[tuple[str, str]],
    batch_size: int,
    steps: int,
    jpegs: int,
    peer_python: str,
    folder: str,
) -> dict[str, list[str]]:
    """{pipeline: its command}; writes the photographs that all of them read into `folder`."""
    data = resolve(configs.load(spec), SCHEMA, overrides).data
    if data.recipe != "pretrain" or data.resolution[0] != data.resolution[1]:
        raise UserError("--compare: the peers know the recipe `pretrain` at a square resolution only")
    peers.check_python(peer_python)
    photographs, packed, records = (f"{folder}/{name}" for name in ("photographs", "packed", "photographs.tfrecord"))
    write_photographs(Path(photographs), jpegs)
    pack(photographs, packed)
    epoch = math.ceil(jpegs / batch_size)
    shape = [f"--batch={batch_size}", f"--steps={steps}", f"--warmup={epoch}"]
    this = [sys.executable, "-m", "vit_jax", "bench", "--mode=data", f"--config={spec}", "--json", *shape]
    this += [f"--config.{key}={value}" for key, value in overrides]
    peer = [
        peer_python,
        str(Path(peers.__file__).with_name("peer_pipelines.py")),
        f"--folder={photographs}",
        *shape,
    ]
    peer += [f"--size={data.resolution[0]}", f"--threads={data.workers or data.threads}"]
    subprocess.run([*peer, "--pipeline=tf.data", f"--records={records}"], check=True, capture_output=True)
    early = ["--warmup=0", f"--steps={max(10, min(steps, epoch - 4))}"]
    return {
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
