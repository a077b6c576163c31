"""A sweep's runs as SLURM jobs, through submitit: job arrays, requeued when they are preempted or run out of time.

The jobs of a submission share a name, which is written into the runs' folders before sbatch is called. The queue shows by that
name which runs still wait or work, so a driver killed at any moment, or an sbatch that timed out, loses no job.
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

from vit_jax.run.record import write_json
from vit_jax.sweeps.executors import GRACE_S, python_path
from vit_jax.sweeps.job import LOG_FILE, OUTCOME_FILE, is_over, read_outcome
from vit_jax.sweeps.results import read_as
from vit_jax.sweeps.slurm_job import SlurmJob
from vit_jax.types import UserError

SLURM_FILE = "slurm.json"
LOOK_EVERY_S = 1.0  # between looks at the runs' files
ASK_EVERY_S = 10.0  # between calls of squeue, which cost the cluster's controller
ASK_AGAIN_S = 5.0  # after a failed call
PATIENCE_S = 900.0  # with an squeue that does not answer; a controller's restart takes minutes
# Options of sbatch that the executor sets itself, and the flags that set them.
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
    """The place of a run's job in the queue.

    Args:
      name: name of the submission's jobs.
      index: the job's index in their array; 0 if it is the only job.
    """

    name: str
    index: int


class SlurmExecutor:
    """Job arrays, requeued when they are preempted or run out of time.

    Args:
      logs: folder for submitit's files.
      parallel: jobs in the queue or running at a time.
      minutes: time limit of a job; after it, the job is requeued and its run resumes.
      cores: CPUs per job.
      gpus: GPUs per job.
      options: further options of sbatch, from `parse_options`.

    Raises:
      UserError: submitit or sbatch is missing, or a number is impossible.
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
        self._jobs: dict[Place, str] = {}  # job ids, shown to the user
        self._asked: set[str] = set()  # names of submissions of earlier drivers
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
        self._running |= places  # before submitting: Ctrl-C may come while sbatch accepts the jobs
        try:
            with outside_job(), contextlib.redirect_stderr(io.StringIO()):  # submitit also prints its errors
                jobs = self._executor.map_array(SlurmJob(), [str(folder.resolve()) for folder in folders])
        except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedSubmissionError) as error:
            for folder in folders:
                del self._running[folder]
            answer = " ".join(str(error).split()) or "nothing"
            raise UserError(
                f"sbatch took no jobs and said: {answer}; put its options right (--slurm=KEY=VALUE, --minutes, --cores, --gpus) "
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
            # Missing twice in a row: a shared file system may show a run's last files seconds after its job is gone.
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
        return f"its jobs stay in the queue; the same command resumes watching them, {end}"


def parse_options(texts: list[str]) -> dict[str, str | bool]:
    """Parses options of sbatch for submitit: `["partition=gpu", "exclusive"]` -> `{"partition": "gpu", "exclusive": True}`.

    Raises:
      UserError: sbatch has no such option, or the executor sets it itself.
    """
    options: dict[str, str | bool] = {}
    for text in texts:
        key, equals, value = text.removeprefix("--").partition("=")
        name = key.replace("-", "_")
        if not re.fullmatch(r"[a-z][a-z0-9_]+", name) or (equals and not value):
            raise UserError(f"--slurm={text}: expected KEY=VALUE or KEY of sbatch, as in --slurm=partition=gpu")
        if name in OURS:
            raise UserError(
                f"--slurm={text}: {key} is set by the sweep itself" + (f"; give {OURS[name]}" if OURS[name] else "")
            )
        options[name] = value if equals else True
    return options


def queued(names: Iterable[str]) -> dict[Place, str]:
    """Jobs with one of some names that wait, run, or will run again: {place: job id}.

    Raises:
      UserError: squeue has failed for a quarter of an hour.
    """
    # Without --array, the waiting jobs of an array are one line. Finished jobs are not listed.
    command = ["squeue", "--noheader", "--array", "--format=%i|%j", f"--name={','.join(sorted(set(names)))}"]
    until = time.monotonic() + PATIENCE_S
    warned = False
    while True:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            if done.returncode == 0:
                break
            answer = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            answer = "no answer in a minute"
        if time.monotonic() >= until:
            raise UserError(f"squeue fails: {answer}; the jobs stay, and the same command resumes watching them")
        if not warned:
            print(
                f"squeue fails: {answer}; asking again for {PATIENCE_S / 60:.0f} minutes", file=sys.stderr, flush=True
            )
            warned = True
        time.sleep(ASK_AGAIN_S)
    jobs = {}
    for line in done.stdout.splitlines():
        job, _, name = line.strip().partition("|")
        jobs[Place(name, int(job.partition("_")[2] or 0))] = job
    return jobs


@contextlib.contextmanager
def outside_job() -> Iterator[None]:
    """Hides the SLURM job that the driver itself may run in: sbatch would apply its cores and memory to the new jobs."""
    inside = "SLURM_JOB_ID" in os.environ
    names = [name for name in os.environ if re.match(r"SLURMD?_|SRUN_", name) and not name.startswith("SLURM_CONF")]
    hidden = {name: os.environ.pop(name) for name in names if inside}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _note_cancelled(folder: Path, job: str) -> None:
    """Records a stopped run whose job will not start again as crashed: it is retried, but not for ever."""
    if read_outcome(folder) is None or is_over(folder):
        return
    with (folder / LOG_FILE).open("a") as log:
        print(f"job {job} was cancelled", file=log)
    (folder / OUTCOME_FILE).unlink()
