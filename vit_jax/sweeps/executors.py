"""Where a sweep's runs are executed: the interface between driver and executor, and an executor for processes of this machine.
`sweeps.slurm` has the one for SLURM. Runs share nothing but the file system.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from vit_jax.sweeps.job import LOG_FILE
from vit_jax.types import UserError

ROOT = Path(__file__).resolve().parents[2]
GRACE_S = 120.0  # time for a stopped run to finish its step and save


class Executor(Protocol):
    """Starts runs by their folders and reports which have ended."""

    def room(self) -> int:
        """How many more runs can start now."""
        ...

    def start(self, folders: list[Path]) -> None:
        """Starts `python -m vit_jax.sweeps.job FOLDER` for each folder."""
        ...

    def adopt(self, folder: Path) -> bool:
        """Whether a run that an earlier driver started still waits or runs; this executor then watches it."""
        ...

    def ended(self) -> list[Path]:
        """Folders of runs whose process has ended since the last call, in the order of their ends."""
        ...

    def stop(self) -> str:
        """Stops all started runs so that they can resume; returns a message for the user."""
        ...


class LocalExecutor:
    """Processes on this machine, each with its share of the cores, or of the GPUs if there are any.

    Args:
      parallel: number of processes at a time.
      gpus: ids of the GPUs to share, from `visible_gpus`; empty to use the CPU.
    """

    def __init__(self, parallel: int, gpus: list[str]):
        if parallel < 1:
            raise UserError(f"--parallel={parallel}: expected 1 or more")
        if gpus and parallel > len(gpus):
            raise UserError(f"--parallel={parallel}: there are {len(gpus)} GPUs, and a run needs one of its own")
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._cores = [share_of(cores, parallel, i) for i in range(parallel)]
        self._gpus = [share_of(gpus, parallel, i) for i in range(parallel)]
        self._free = list(range(parallel))
        self._running: dict[Path, tuple[subprocess.Popen[bytes], int]] = {}

    def room(self) -> int:
        return len(self._free)

    def adopt(self, folder: Path) -> bool:
        return False  # its processes end with the driver; a process that is still saving holds the folder's lock

    def start(self, folders: list[Path]) -> None:
        for folder in folders:
            slot = self._free.pop(0)
            command = [sys.executable, "-m", "vit_jax.sweeps.job", str(folder.resolve()), f"--parent={os.getpid()}"]
            if self._cores[slot]:
                command.append(f"--cores={','.join(map(str, self._cores[slot]))}")
            env = {**os.environ, "PYTHONPATH": python_path()}
            if self._gpus[slot]:
                env["CUDA_VISIBLE_DEVICES"] = ",".join(self._gpus[slot])
            with (folder / LOG_FILE).open("ab") as log:
                # A session of its own, so that only the driver passes Ctrl-C on to it, once.
                process = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
            self._running[folder] = process, slot

    def ended(self) -> list[Path]:
        over = [folder for folder, (process, _) in self._running.items() if process.poll() is not None]
        for folder in over:
            self._free.append(self._running.pop(folder)[1])
        self._free.sort()
        return over

    def stop(self) -> str:
        for process, _ in self._running.values():
            process.terminate()
        until = time.monotonic() + GRACE_S
        for process, _ in self._running.values():
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return "what ran has saved; the same command resumes"


def share_of(items: list[Any], parts: int, part: int) -> list[Any]:
    """The items of one of several equal parts; if there are fewer items than parts, several parts share an item."""
    if not items:
        return []
    if len(items) < parts:
        return [items[part % len(items)]]
    size = len(items) // parts
    return items[part * size : (part + 1) * size]


def visible_gpus() -> list[str]:
    """Ids of the GPUs that this process may use, from the environment or nvidia-smi; jax would claim them."""
    if os.environ.get("JAX_PLATFORMS", "") == "cpu":
        return []
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [part for part in chosen.split(",") if part not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    return re.findall(r"^GPU (\d+):", listed.stdout, re.MULTILINE)  # the parts of a GPU (MIG) are listed below it


def python_path() -> str:
    """PYTHONPATH for a run: this code base first, because it may not be installed."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
