"""The body of a SLURM job around a run that is a small script here: exit codes, and what a signal of SLURM's makes of it."""

import pickle
import signal
import sys
import time

import pytest

from vit_jax.sweeps import slurm_job
from vit_jax.sweeps.slurm_job import SlurmJob


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a run; `waits` gathers the seconds that a job waits at its end."""
    monkeypatch.setattr(slurm_job, "GRACE_S", 120.0)
    (tmp_path / "log.txt").write_text("an earlier start\n")
    return tmp_path


@pytest.fixture
def waits(monkeypatch):
    found = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


def make_run(monkeypatch, folder, text, program="/bin/sh"):
    """Makes a script the Python that the job starts; its third argument is the run's folder."""
    script = folder / "python"
    script.write_text(f"#!{program}\n{text}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


@pytest.mark.parametrize(
    ("text", "code", "grace"),
    [
        ("exit 0", 0, []),
        ("exit 2", 2, []),
        ("exit 75", 75, [120.0]),  # SLURM puts a preempted job back only if SIGKILL ends it, or it still runs then
        ("kill -TERM $$", 256 - signal.SIGTERM, [120.0]),
        ("kill -KILL $$", 256 - signal.SIGKILL, []),
    ],
)
def test_the_job_ends_as_its_run_did_and_waits_for_slurm_only_when_it_was_stopped(
    monkeypatch, folder, waits, text, code, grace
):
    make_run(monkeypatch, folder, f'echo "$1 $2 $3"; {text}')
    with pytest.raises(SystemExit) as ended:
        SlurmJob()(str(folder))
    assert (ended.value.code, waits) == (code, grace)
    assert (folder / "log.txt").read_text() == f"an earlier start\n-m vit_jax.sweeps.job {folder}\n"


STOPPED = """
import os, signal, sys, time
os.kill(os.getpid(), signal.SIGUSR2)  # SLURM signals every process of a job, and the run must live through that
def stop(*_):
    open(sys.argv[3] + "/outcome.json", "w").write(os.environ["OUTCOME"])
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
os.kill(os.getppid(), signal.SIGUSR2)
time.sleep(20)
"""


@pytest.mark.parametrize(("code", "requeued"), [(75, True), (0, False)], ids=["it saved", "it was just done"])
def test_the_warning_stops_the_run_and_puts_the_job_back_unless_the_run_is_over(
    monkeypatch, folder, waits, code, requeued
):
    make_run(monkeypatch, folder, STOPPED, f"{sys.executable} -SE")
    monkeypatch.setenv("OUTCOME", f'{{"code": {code}, "message": ""}}')
    job, answers = SlurmJob(), []
    before = signal.signal(signal.SIGUSR2, lambda *_: answers.append(job.checkpoint(str(folder))))  # as submitit does
    try:
        with pytest.raises(SystemExit) as ended:
            job(str(folder))
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert ended.value.code == 75
    (answer,) = answers
    assert (answer is not None) == requeued
    if answer is not None:
        assert (answer.function, answer.args) == (job, (str(folder),))
        assert pickle.loads(pickle.dumps(job)).__dict__ == {"_process": None}  # the next start has a run of its own
