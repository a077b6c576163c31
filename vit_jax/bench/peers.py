"""Compares the input pipeline with tf.data's and PyTorch's: each in a process of its own, in turns, on the same photographs."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.types import UserError

PYTHON_HINT = (
    "make one with `python -m venv peers && peers/bin/pip install -r requirements-benchmark.txt` and pass "
    "--peer-python=peers/bin/python"
)
# TensorFlow without its log and without an accelerator.
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}


def check_python(python: str) -> None:
    """Raises UserError unless `python` is an interpreter with the peers' packages."""
    if not python:
        raise UserError(f"--compare needs an interpreter that has TensorFlow, PyTorch and Pillow; {PYTHON_HINT}")
    try:
        imported = _run([python, "-c", "import PIL, tensorflow, torch"])
    except OSError as error:
        raise UserError(f"--peer-python={python} cannot be started: {error}; {PYTHON_HINT}") from error
    if imported.returncode:
        reason = (imported.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"--peer-python={python} lacks a package: {reason}; {PYTHON_HINT}")


def measure_in_turns(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, dict[str, float]]:
    """Runs each command `rounds` times in the order ABCABC, so that a disturbance of the machine affects all.

    Args:
      commands: {name: command}; each prints one line of JSON in the form of `throughput.measure_batches`.
      rounds: runs of each command.

    Returns:
      {name: the median of each number}.
    """
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            done = _run(command)
            if done.returncode:
                raise UserError(f"{name} failed; its last words: {done.stderr.strip()[-500:]}")
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
    return {name: take_medians(runs) for name, runs in results.items()}


def take_medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The median of each key whose values are numbers."""
    numbers = [key for key, value in runs[0].items() if isinstance(value, int | float) and not isinstance(value, bool)]
    return {key: statistics.median(run[key] for run in runs) for key in numbers}


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | ENVIRONMENT)


def to_markdown(medians: Mapping[str, Mapping[str, float]]) -> str:
    """A table with a row per pipeline; the last column compares images per CPU-second with the first row's."""
    lines = [
        "| pipeline | images/s | images per CPU-second | CPU-ms per image | memory, MB | to first batch, s | ours is |",
        "|---|---|---|---|---|---|---|",
    ]
    first = next(iter(medians.values()))["images_per_cpu_s"]
    for name, figures in medians.items():
        cells = [
            name,
            f"{figures['images_per_s']:.0f}",
            f"{figures['images_per_cpu_s']:.0f}",
            f"{figures['cpu_ms_per_image']:.2f}",
            f"{figures['memory_bytes'] / 1e6:.0f}",
            f"{figures['process_start_to_first_batch_s']:.1f}",
            f"{first / figures['images_per_cpu_s']:.2f} x",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
