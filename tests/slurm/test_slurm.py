"""A sweep on a real SLURM, started by start.sh on this machine: what befalls its jobs leaves no trace in its results."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PATIENCE_S = 180  # for whatever is waited for
GRID = "configs/finetune.py:dataset=cifar10,variant=B/16,smoke"  # the handwritten digits, on a ViT of two layers
STEPS = 160

pytestmark = pytest.mark.slurm


def wait_until(happened: Callable[[], object], what: str, log: Path | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, f"waited too long for {what}\n{log.read_text() if log else ''}"
        time.sleep(0.05)


def trains(run: Path) -> bool:
    """Whether a run has told of its first steps."""
    file = run / "metrics.jsonl"
    return file.exists() and file.stat().st_size > 0


class Cluster:
    """A SLURM in a folder, and programs that know of it.

    Args:
      folder: that start.sh was given.
      data_dir: where digits are prepared.
      compiled: folder for compiled programs.
    """

    def __init__(self, folder: Path, data_dir: Path, compiled: Path):
        self.data_dir = data_dir
        ours = {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(compiled),
            "XLA_FLAGS": "--xla_backend_optimization_level=0",  # models this small compile for longer than they run
            "TFDS_DATA_DIR": str(data_dir),
        }
        self.env = {**os.environ, **ours, "SLURM_CONF": str(folder / "slurm.conf")}
        self._started: list[subprocess.Popen[bytes]] = []

    def ask(self, *command: str) -> str:
        """What one of SLURM's commands prints."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """{job id: state} of the queue."""
        lines = self.ask("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def job_of(self, run: Path) -> str:
        """Id of the run's job, from its own environment: what the process in SLURM sees."""
        name, index = json.loads((run / "slurm.json").read_text()).values()
        listed = self.ask("squeue", "--noheader", "--array", f"--name={name}", "--format=%i").split()
        (job,) = [job for job in listed if int(job.partition("_")[2] or 0) == index]
        return job

    def requeue_now(self, job: str) -> None:
        """Waits until a job is back in the queue, and takes SLURM's delay of two minutes from it."""
        wait_until(lambda: self.jobs()[job] == "PENDING", f"job {job} in the queue again")
        # While its last processes end, a job cannot be changed.
        command = ["scontrol", "update", f"JobId={job}", "StartTime=now"]
        wait_until(
            lambda: subprocess.run(command, env=self.env, capture_output=True).returncode == 0, f"{job} to start"
        )

    def start(self, grid: str, workdir: Path, *words: str, steps: int = STEPS) -> subprocess.Popen[bytes]:
        """Starts vit_jax sweep, which prints into WORKDIR.txt."""
        command = [sys.executable, "-m", "vit_jax", "sweep", f"--config={grid}", f"--workdir={workdir}", *words]
        command += [f"--config.train.duration={steps}", "--config.checkpoint.every=40"]
        with workdir.with_suffix(".txt").open("ab") as log:
            self._started.append(subprocess.Popen(command, cwd=ROOT, env=self.env, stdout=log, stderr=log))
        return self._started[-1]

    def sweep(self, grid: str, workdir: Path, *words: str, steps: int = STEPS) -> tuple[int, str]:
        """Runs vit_jax sweep to its end: exit code, and all that it ever printed for this workdir."""
        code = self.start(grid, workdir, *words, steps=steps).wait(PATIENCE_S)
        return code, workdir.with_suffix(".txt").read_text()

    def close(self) -> None:
        """Leaves no process behind."""
        for process in self._started:
            if process.poll() is None:
                process.terminate()
                process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A SLURM with one idle node of four CPUs."""
    from vit_jax.data.prepare.prepare import prepare

    data_dir = tmp_path_factory.mktemp("tfds")
    prepare("digits", data_dir=str(data_dir))
    folder = Path(tempfile.mkdtemp(prefix="slurm."))  # its sockets need a short path
    try:
        subprocess.run(["bash", HERE / "start.sh", folder], check=True, timeout=120)
        with contextlib.closing(Cluster(folder, data_dir, tmp_path_factory.mktemp("compiled"))) as made:
            yield made
    finally:
        subprocess.run(["bash", HERE / "stop.sh", folder], check=True, timeout=120)
    shutil.rmtree(folder)


SLURM = ("--executor=slurm", "--cores=2", "--minutes=30")


def results(sweep: Path) -> dict[str, dict]:
    """{run: its result without times and surroundings}."""
    found = {}
    for file in sorted(sweep.glob("runs/*/*/result.json")):
        result = json.loads(file.read_text())
        found[file.parent.name] = {k: v for k, v in result.items() if k not in ("seconds", "surroundings")}
    return found


def records(run: Path) -> list[dict]:
    """The lines of metrics.jsonl without what measures time."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


def test_requeued_jobs_and_a_killed_driver_leave_the_results_of_an_undisturbed_sweep(cluster, tmp_path):
    grid, sweep, calm = f"{GRID},lr=0.01+0.03,seeds=1", tmp_path / "on slurm", tmp_path / "local"
    driver = cluster.start(grid, sweep, *SLURM)
    runs = [sweep / "runs" / "cifar10" / f"dev-lr{rate}-seed0" for rate in (0.01, 0.03)]
    log = sweep.with_suffix(".txt")
    wait_until(lambda: trains(runs[0]), "the first run to train", log)
    first = cluster.job_of(runs[0])
    cluster.ask("scancel", "--signal=USR2", first)  # what SLURM sends when the time limit nears
    driver.kill()
    driver.wait()
    wait_until(lambda: trains(runs[1]), "the second run to train", log)
    second = cluster.job_of(runs[1])
    cluster.ask("srun", "--partition=urgent", "--cpus-per-task=4", "true")  # it is preempted: five seconds, and out
    assert [first.partition("_")[2], second.partition("_")[2]] == ["0", "1"]
    assert first.partition("_")[0] == second.partition("_")[0]  # one array
    for job in (first, second):
        cluster.requeue_now(job)

    driver = cluster.start(grid, sweep, *SLURM)
    code, said = cluster.sweep(grid, calm, "--parallel=1")
    assert code == 0, said
    driver.wait(PATIENCE_S)
    said = log.read_text()
    assert driver.returncode == 0, said
    assert "3 of 3 runs are done" in said
    # The driver that was started again took over what it found: one array to choose from, and the final run.
    assert len(list((sweep / "slurm").glob("*_submission.sh"))) == 2
    for run in runs:
        told = (run / "log.txt").read_text()
        assert told.count(f"of {STEPS} and saved; the same command resumes") == 1, told
        assert told.count("resum") == 2, told  # that it will, and that it does
    assert len(results(sweep)) == 3
    assert results(sweep) == results(calm)
    for run in sorted(calm.glob("runs/*/*")):
        assert len(records(run)) > STEPS // 4
        assert records(sweep / run.relative_to(calm)) == records(run)
    report = [sys.executable, "-m", "vit_jax", "report", sweep]
    subprocess.run(report, cwd=ROOT, env=cluster.env, check=True, timeout=PATIENCE_S)
    assert list(sweep.rglob("*.html"))


def test_cancelled_jobs_are_retried_a_bounded_number_of_times_and_a_stopped_driver_leaves_them(cluster, tmp_path):
    grid, sweep = f"{GRID},lr=0.01,seeds=1", tmp_path / "cancelled"
    run, log = sweep / "runs" / "cifar10" / "final-lr0.01-seed0", sweep.with_suffix(".txt")
    driver = cluster.start(grid, sweep, *SLURM, "--retries=1", steps=100_000)
    cancelled = []
    for _ in range(2):
        wait_until(lambda: set(cluster.jobs()) - set(cancelled), "a job", log)
        wait_until(lambda: trains(run), "it to train", log)
        cancelled.append(cluster.job_of(run))
        (run / "metrics.jsonl").unlink()
        cluster.ask("scancel", cancelled[-1])
    assert driver.wait(PATIENCE_S) == 1
    assert len(set(cancelled)) == 2
    said = log.read_text()
    assert "failed: cifar10/final-lr0.01-seed0: crashed 2 times" in said
    assert said.count(f"job {cancelled[1]} was cancelled") == 2  # as it happens, and at the end

    driver = cluster.start(grid, sweep, *SLURM, steps=100_000)
    wait_until(lambda: "RUNNING" in cluster.jobs().values(), "the third job", log)
    job = cluster.job_of(run)
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(PATIENCE_S) == 75
    assert f"`scancel {job}` ends them" in log.read_text()
    assert cluster.jobs()[job] == "RUNNING"
    cluster.ask("scancel", job)
    assert results(sweep) == {}


def test_a_refused_submission_is_told_once_in_sbatch_s_words_and_loses_nothing(cluster, tmp_path):
    grid, sweep = f"{GRID},lr=0.01,seeds=2", tmp_path / "refused"
    code, said = cluster.sweep(grid, sweep, *SLURM, "--slurm=partition=nowhere")
    assert code == 2
    assert said.count("invalid partition specified: nowhere") == 1
    assert "Traceback" not in said
    # With the option put right, the same folder is used; the driver is stopped as soon as the jobs are there.
    before = set(cluster.jobs())
    driver = cluster.start(grid, sweep, *SLURM)
    wait_until(lambda: len(set(cluster.jobs()) - before) == 2, "two jobs", sweep.with_suffix(".txt"))
    driver.send_signal(signal.SIGINT)
    assert driver.wait(PATIENCE_S) == 75


def test_the_documented_job_trains_on_two_nodes_of_two_processes_and_resumes_after_a_death(cluster, tmp_path):
    """docs/scale.md's batch script, on a small config. The two nodes are one machine, whose names no resolver knows."""
    page = (ROOT / "docs" / "scale.md").read_text()
    (script,) = re.findall(r"^```\n(#!/bin/bash\n.*?)^```", page, re.DOTALL | re.MULTILINE)
    run, small = tmp_path / "run", "quickstart:pretrain,smoke --config.train.duration=40 --config.checkpoint.every=10"
    script = script.replace("vit_jax train", f"{sys.executable} -m vit_jax train").replace("/shared/runs/b16", str(run))
    script = re.sub(r"--config=configs/\S+", f"--config={small} --heartbeat-s=10", script)
    (tmp_path / "job.sh").write_text(script)
    with socket.socket() as held:
        held.bind(("localhost", 0))
        cluster.env["JAX_COORDINATOR_ADDRESS"] = f"localhost:{held.getsockname()[1]}"
    submit = [
        "sbatch",
        "--parsable",
        "--partition=pair",
        "--no-requeue",
        f"--chdir={ROOT}",
        f"--output={tmp_path / 'log'}",
    ]
    try:
        job = cluster.ask(*submit, str(tmp_path / "job.sh")).strip()
        wait_until(lambda: (run / "checkpoints" / "10").exists(), "the first checkpoint", tmp_path / "log")
        (victim,) = processes_of(job, rank=3)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: job not in cluster.jobs(), "the end of the job", tmp_path / "log")
        assert not (run / "run.json").exists()
        job = cluster.ask(*submit, str(tmp_path / "job.sh")).strip()
        wait_until(lambda: job not in cluster.jobs(), "the end of the second job", tmp_path / "log")
    finally:
        del cluster.env["JAX_COORDINATOR_ADDRESS"]
    told = (tmp_path / "log").read_text()
    assert "4 x cpu (data 4 x fsdp 1), 4 processes" in told, told
    assert f"resuming {run} from step" in told, told
    assert told.count("done: step 40") == 4, told
    assert [line["step"] for line in records(run) if "train/loss" in line][-1] == 40


def processes_of(job: str, rank: int) -> list[int]:
    """Ids of the processes of vit_jax that are this rank of a job."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (place / "cmdline").read_bytes().split(b"\0")
            environment = (place / "environ").read_bytes().split(b"\0")
            asked = {f"SLURM_JOB_ID={job}".encode(), f"SLURM_PROCID={rank}".encode()}
            if b"vit_jax" in words and asked <= {*environment}:
                found.append(int(place.name))
    return found
