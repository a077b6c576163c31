"""Where a sweep's runs are executed: processes of this machine, or SLURM jobs. Runs share nothing but the file system.

Called by: sweeps.drive.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from vit_jax.record import write_json
from vit_jax.sweeps.job import LOG_FILE
from vit_jax.types import UserError

ROOT = Path(__file__).resolve().parents[2]
GRACE_S = 120.0  # that a stopped run gets to finish its step and save
SLURM_FILE = "slurm.json"


class Executor(Protocol):
    """Starts runs by their folders and says which have ended."""

    def room(self) -> int:
        """How many more runs can be started now."""
        ...

    def start(self, folders: list[Path]) -> None:
        """Starts `python -m vit_jax.sweeps.job FOLDER` for each."""
        ...

    def adopt(self, folder: Path) -> bool:
        """Whether a run that an earlier driver started still waits or runs; it is then this one's to watch."""
        ...

    def ended(self) -> list[Path]:
        """Folders of runs whose process is over since the last call, in the order they ended in."""
        ...

    def stop(self) -> str:
        """Ends what was started, in a way that can go on; returns what to tell the user."""
        ...


class LocalExecutor:
    """Processes on this machine, each with its share of the cores, or of the GPUs where there are some.

    Args:
      parallel: processes at a time.
      gpus: ids of the GPUs to share out, from `visible_gpus`; none for a CPU.
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
        return False  # its processes end with the driver; one that still saves holds the folder's lock

    def start(self, folders: list[Path]) -> None:
        for folder in folders:
            slot = self._free.pop(0)
            command = [sys.executable, "-m", "vit_jax.sweeps.job", str(folder.resolve()), f"--parent={os.getpid()}"]
            if self._cores[slot]:
                command.append(f"--cores={','.join(map(str, self._cores[slot]))}")
            env = {**os.environ, "PYTHONPATH": _python_path()}
            if self._gpus[slot]:
                env["CUDA_VISIBLE_DEVICES"] = ",".join(self._gpus[slot])
            with (folder / LOG_FILE).open("ab") as log:
                # A session of its own: Ctrl-C in the terminal is the driver's to pass on, once.
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
        return "what ran has saved; the same command goes on"


def share_of(items: list[Any], parts: int, part: int) -> list[Any]:
    """The items of one of several equal parts; where there are fewer items than parts, some share one."""
    if not items:
        return []
    if len(items) < parts:
        return [items[part % len(items)]]
    size = len(items) // parts
    return items[part * size : (part + 1) * size]


def visible_gpus() -> list[str]:
    """Ids of the GPUs that this process may use, asked of the driver's own tool and not of jax, which would claim them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [part for part in chosen.split(",") if part not in ("", "-1")]
    if os.environ.get("JAX_PLATFORMS", "") == "cpu" or shutil.which("nvidia-smi") is None:
        return []
    found = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    return [str(i) for i, line in enumerate(found.stdout.splitlines()) if line.startswith("GPU ")]


def _python_path() -> str:
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))


class SlurmExecutor:
    """Job arrays through submitit, requeued when they are preempted or run out of time.

    Args:
      logs: folder for submitit's files.
      parallel: jobs in the queue or running at a time.
      minutes: time limit of a job; it is requeued, and goes on, when that is over.
      cores: CPUs of a job.
      gpus: GPUs of a job.
      options: further sbatch options, `{"partition": "gpu", "mem": "32G"}`.
    """

    def __init__(self, logs: Path, *, parallel: int, minutes: int, cores: int, gpus: int, options: dict[str, str]):
        try:
            import submitit
        except ImportError as error:
            raise UserError("--executor=slurm needs submitit: pip install 'submitit>=1.5,<2'") from error
        if shutil.which("sbatch") is None:
            raise UserError("--executor=slurm needs sbatch, which is not on this machine; run it on a login node")
        self._executor = submitit.SlurmExecutor(folder=logs, max_num_timeout=100)
        additional = {"requeue": True, **options}
        self._executor.update_parameters(
            job_name="vit_jax_sweep",
            time=minutes,
            cpus_per_task=cores,
            array_parallelism=parallel,
            signal_delay_s=min(GRACE_S, minutes * 60 / 4).__trunc__(),
            setup=[f"export PYTHONPATH={_python_path()}"],
            additional_parameters=additional,
            **({"gres": f"gpu:{gpus}"} if gpus else {}),
        )
        self._parallel = parallel
        self._running: dict[Path, str] = {}

    def room(self) -> int:
        return self._parallel - len(self._running)

    def start(self, folders: list[Path]) -> None:
        jobs = self._executor.map_array(SlurmJob(), [str(folder.resolve()) for folder in folders])
        for folder, job in zip(folders, jobs, strict=True):
            write_json(folder / SLURM_FILE, {"job": job.job_id})
            self._running[folder] = job.job_id

    def adopt(self, folder: Path) -> bool:
        file = folder / SLURM_FILE
        if not file.exists():
            return False
        job = json.loads(file.read_text())["job"]
        if job not in queued([job]):
            return False
        self._running[folder] = job
        return True

    def ended(self) -> list[Path]:
        if not self._running:
            return []
        alive = queued(self._running.values())
        over = [folder for folder, job in self._running.items() if job not in alive]
        for folder in over:
            del self._running[folder]
        return over

    def stop(self) -> str:
        if not self._running:
            return "no job was left in the queue"
        jobs = " ".join(sorted(self._running.values()))
        return f"its jobs stay in the queue; the same command goes on watching them, `scancel {jobs}` ends them"


def queued(jobs: Iterable[str]) -> set[str]:
    """Those of some SLURM jobs that wait, run, or will run again.

    Raises:
      UserError: the queue cannot be asked, for a minute.
    """
    wanted = set(jobs)
    command = ["squeue", "--noheader", "--array", "--format=%i %T", f"--jobs={','.join(sorted(wanted))}"]
    for _ in range(12):
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode == 0 or "Invalid job id" in found.stderr:  # all of them are gone from its memory
            break
        time.sleep(5)
    else:
        raise UserError(f"squeue does not answer: {found.stderr.strip()}; the same command goes on when it does")
    over = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"}
    states = dict(line.split() for line in found.stdout.splitlines())
    return {job for job in wanted if job in states and states[job] not in over}


class SlurmJob:
    """What a job of the array calls; pickled by submitit.

    The run is a process of its own, so that a signal of SLURM's can be answered: it is told to stop, saves, and the job is
    put back into the queue.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_process": None}

    def __call__(self, folder: str) -> int:
        command = [sys.executable, "-m", "vit_jax.sweeps.job", folder]
        # SLURM sends its warning to every process of the job; the run is to hear of it from here, once.
        previous = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        with (Path(folder) / LOG_FILE).open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        signal.signal(signal.SIGUSR2, previous)
        _wait_for(self._process.pid)
        return self._process.wait()

    def checkpoint(self, folder: str) -> Any:
        """Called by submitit on the signal: stops the run and says what to do when the job starts again."""
        import submitit

        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            _wait_for(self._process.pid)
        return submitit.helpers.DelayedSubmission(self, folder)


def _wait_for(pid: int) -> None:
    """Waits for a child's end and leaves its exit code to be read. `Popen.wait` holds a lock that a signal's handler, which
    waits too, would wait for in vain."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
