"""A sweep's runs as SLURM jobs, through submitit: job arrays, requeued when they are preempted or run out of time.

A submission's jobs have a name of their own, which the runs' folders hold before sbatch is called. Which runs still wait or
work is read off the queue by that name, so a driver killed at any moment, or an sbatch that timed out, loses no job.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from vit_jax.record import write_json
from vit_jax.sweeps.executors import GRACE_S, python_path
from vit_jax.sweeps.job import LOG_FILE, OUTCOME_FILE, is_over, read_outcome
from vit_jax.sweeps.results import read_as
from vit_jax.sweeps.slurm_job import SlurmJob
from vit_jax.types import UserError

SLURM_FILE = "slurm.json"
LOOK_EVERY_S = 1.0  # at what runs left on disk
ASK_EVERY_S = 10.0  # squeue, which costs the cluster's controller
ASK_AGAIN_S = 5.0  # when it failed
PATIENCE_S = 900.0  # with a squeue that does not answer; a controller's restart takes minutes
# Options of sbatch that are the executor's own, and what sets them instead.
OURS = {
    "array": "--parallel",
    "cpus_per_task": "--cores",
    "time": "--minutes",
    "error": "",
    "job_name": "",
    "no_requeue": "",
    "output": "",
    "parsable": "",
    "signal": "",
    "wait": "",
    "wrap": "",
}


@dataclasses.dataclass(frozen=True)
class Place:
    """Which job is a run's.

    Args:
      name: of the submission's jobs.
      index: of the run's in their array, 0 where there is one alone.
    """

    name: str
    index: int


class SlurmExecutor:
    """Job arrays, requeued when they are preempted or run out of time.

    Args:
      logs: folder for submitit's files.
      parallel: jobs in the queue or running at a time.
      minutes: time limit of a job; it is requeued, and goes on, when that is over.
      cores: CPUs of a job.
      gpus: GPUs of a job.
      options: further options of sbatch, from `parse_options`.

    Raises:
      UserError: no submitit, no sbatch, or a number that cannot be.
    """

    def __init__(
        self, logs: Path, *, parallel: int, minutes: int, cores: int, gpus: int, options: dict[str, str | bool]
    ):
        least = {"parallel": (parallel, 1), "minutes": (minutes, 1), "cores": (cores, 1), "gpus": (gpus, 0)}
        for flag, (value, expected) in least.items():
            if value < expected:
                raise UserError(f"--{flag}={value}: expected {expected} or more")
        try:
            import submitit
        except ImportError as error:
            raise UserError("--executor=slurm needs submitit: pip install 'submitit>=1.5,<2'") from error
        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise UserError("--executor=slurm needs sbatch, which is not on this machine; run it on a login node")
        self._executor = submitit.SlurmExecutor(folder=logs, max_num_timeout=1000)
        self._executor.update_parameters(
            time=minutes,
            cpus_per_task=cores,
            array_parallelism=parallel,
            signal_delay_s=int(min(GRACE_S, minutes * 60 / 4)),
            setup=[f"export PYTHONPATH={shlex.quote(python_path())}"],
            srun_args=[f"--cpus-per-task={cores}"],  # a step has one core since SLURM 22.05, however many its job has
            additional_parameters={"requeue": True, **options},
            **({"gres": f"gpu:{gpus}"} if gpus else {}),
        )
        self._parallel = parallel
        self._running: dict[Path, Place] = {}
        self._jobs: dict[Place, str] = {}  # ids, for the user
        self._asked: set[str] = set()  # names of earlier drivers' submissions
        self._missing: set[Path] = set()
        self._look = self._ask = 0.0

    def room(self) -> int:
        return self._parallel - len(self._running)

    def start(self, folders: list[Path]) -> None:
        import submitit

        name = f"vit_jax-{uuid.uuid4().hex[:8]}"
        places = {folder: Place(name, index) for index, folder in enumerate(folders)}
        for folder, place in places.items():
            write_json(folder / SLURM_FILE, dataclasses.asdict(place))
        self._executor.update_parameters(job_name=name)
        self._running |= places  # first: Ctrl-C may come while sbatch takes them
        try:
            with outside_job(), contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises, too
                jobs = self._executor.map_array(SlurmJob(), [str(folder.resolve()) for folder in folders])
        except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedSubmissionError) as error:
            for folder in folders:
                del self._running[folder]
            said = " ".join(str(error).split()) or "nothing"
            raise UserError(
                f"sbatch took no jobs and said: {said}; put its options right (--slurm=KEY=VALUE, --minutes, --cores, --gpus) "
                "and give the same command again: what is done, queued or running is kept"
            ) from error
        self._jobs |= {place: job.job_id for place, job in zip(places.values(), jobs, strict=True)}

    def adopt(self, folder: Path) -> bool:
        file = folder / SLURM_FILE
        if not file.exists():
            return False
        place = read_as(Place, file, "remove it if no job of this sweep is left in the queue")
        if place.name not in self._asked:
            self._jobs |= queued([place.name])
            self._asked.add(place.name)
        if place not in self._jobs:
            return False
        self._running[folder] = place
        return True

    def ended(self) -> list[Path]:
        now = time.monotonic()
        if not self._running or now < self._look:
            return []
        self._look = now + LOOK_EVERY_S
        over = [folder for folder in self._running if is_over(folder)]
        if now >= self._ask:
            alive = queued(place.name for place in self._running.values())
            missing = {folder for folder, place in self._running.items() if place not in alive}
            # Twice in a row: a shared file system may show a run's last words some seconds after its job is gone.
            over += [folder for folder in self._running if folder in missing & self._missing and folder not in over]
            self._missing = missing
            self._ask = time.monotonic() + ASK_EVERY_S
        for folder in over:
            _note_cancelled(folder, self._jobs[self._running.pop(folder)])
        self._missing -= set(over)
        return over

    def stop(self) -> str:
        if not self._running:
            return "no job was left in the queue"
        known = {self._jobs[place].split("_")[0] for place in self._running.values() if place in self._jobs}
        end = f"`scancel {' '.join(sorted(known, key=int))}` ends them" if known else "`squeue --me` may list them"
        return f"its jobs stay in the queue; the same command goes on watching them, {end}"


def parse_options(texts: list[str]) -> dict[str, str | bool]:
    """Options of sbatch as submitit takes them: `["partition=gpu", "exclusive"]` is `{"partition": "gpu", "exclusive": True}`.

    Raises:
      UserError: no option of sbatch's, or one that is the executor's own.
    """
    found: dict[str, str | bool] = {}
    for text in texts:
        key, equals, value = text.removeprefix("--").partition("=")
        name = key.replace("-", "_")
        if not re.fullmatch(r"[a-z][a-z0-9_]+", name) or (equals and not value):
            raise UserError(f"--slurm={text}: expected KEY=VALUE or KEY of sbatch, as in --slurm=partition=gpu")
        if name in OURS:
            raise UserError(
                f"--slurm={text}: {key} is set by the sweep itself" + (f"; give {OURS[name]}" if OURS[name] else "")
            )
        found[name] = value if equals else True
    return found


def queued(names: Iterable[str]) -> dict[Place, str]:
    """The jobs of some names that wait, run, or will run again, and their ids.

    Raises:
      UserError: the queue cannot be asked, for a quarter of an hour.
    """
    # --array: without it, the waiting jobs of an array are one line. Jobs that are over are not listed.
    command = ["squeue", "--noheader", "--array", "--format=%i|%j", f"--name={','.join(sorted(set(names)))}"]
    until = time.monotonic() + PATIENCE_S
    told = False
    while True:
        try:
            found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            if found.returncode == 0:
                break
            said = " ".join(found.stderr.split()) or f"exit code {found.returncode}"
        except subprocess.TimeoutExpired:
            said = "no answer in a minute"
        if time.monotonic() >= until:
            raise UserError(f"squeue fails: {said}; the jobs stay, and the same command goes on watching them")
        if not told:
            print(f"squeue fails: {said}; asking again for {PATIENCE_S / 60:.0f} minutes", file=sys.stderr, flush=True)
            told = True
        time.sleep(ASK_AGAIN_S)
    jobs = {}
    for line in found.stdout.splitlines():
        job, _, name = line.strip().partition("|")
        jobs[Place(name, int(job.partition("_")[2] or 0))] = job
    return jobs


@contextlib.contextmanager
def outside_job() -> Iterator[None]:
    """Hides the job that the driver itself may run in: sbatch would take its cores and memory for ours."""
    inside = "SLURM_JOB_ID" in os.environ
    names = [name for name in os.environ if re.match(r"SLURMD?_|SRUN_", name) and not name.startswith("SLURM_CONF")]
    hidden = {name: os.environ.pop(name) for name in names if inside}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _note_cancelled(folder: Path, job: str) -> None:
    """Makes a crash of a run that was stopped and whose job will not start it again: it is retried, but not for ever."""
    if read_outcome(folder) is None or is_over(folder):
        return
    with (folder / LOG_FILE).open("a") as log:
        print(f"job {job} was cancelled", file=log)
    (folder / OUTCOME_FILE).unlink()
