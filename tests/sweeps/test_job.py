"""How a run of a sweep ends before it trains: told to stop, it says so; crashed, it says nothing and is counted as crashed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vit_jax.process import EXIT_INTERRUPTED, EXIT_USER_ERROR
from vit_jax.sweeps import job
from vit_jax.sweeps.grid import _described
from vit_jax.sweeps.job import OUTCOME_FILE, evaluator_of, read_outcome, write_job
from vit_jax.sweeps.job import main as job_main
from vit_jax.types import UserError

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_run_that_is_told_to_stop_before_it_trains_leaves_that_as_its_outcome(
    grid, config_file, tmp_path, monkeypatch
):
    run = grid.dev_runs("a")[0]
    place = run.folder(tmp_path)
    config_file.write_text(config_file.read_text() + "\nimport os, time\ntime.sleep(60 * ('SLOW' in os.environ))\n")
    write_job(place, run, "final")
    monkeypatch.setenv("SLOW", "1")
    command = [sys.executable, "-m", "vit_jax.sweeps.job", str(place)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        while not (place / ".lock").exists():
            assert running.poll() is None
        time.sleep(0.5)  # it now sleeps in its config
        running.send_signal(signal.SIGTERM)
        assert running.stdout.read() == "stopped; the same command resumes\n"
    assert running.returncode == EXIT_INTERRUPTED
    assert read_outcome(place) == (EXIT_INTERRUPTED, "stopped; the same command resumes")
    assert not (place / ".lock").exists()


def test_a_run_that_crashes_leaves_no_outcome(grid, tmp_path, monkeypatch):
    run = grid.dev_runs("a")[0]
    place = run.folder(tmp_path)
    write_job(place, run, "final")

    def crash(_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(job, "_work", crash)
    with pytest.raises(RuntimeError):
        job.main([str(place)])
    assert read_outcome(place) is None  # as an interrupted run it would be started again for ever


def test_the_scored_evaluator_is_the_one_named_after_the_phase(grid):
    dev, final = grid.dev_runs("a")[0], grid.final_runs("a", {})[0]
    assert evaluator_of(final, ["fewshot", "real", "test"]) == "test"
    assert evaluator_of(dev, ["digits"]) == "digits"
    with pytest.raises(UserError, match="has evals fewshot, test; a sweep compares one: call it dev"):
        evaluator_of(dev, ["test", "fewshot"])


def test_a_config_file_that_changes_while_the_sweep_goes_on_is_told_by_the_run(grid, config_file, tmp_path):
    run = grid.dev_runs("a")[0]
    place = run.folder(tmp_path)
    write_job(place, run, "final")
    config_file.write_text(config_file.read_text().replace("0.5", "0.6"))
    _described.cache_clear()
    assert job_main([str(place)]) == EXIT_USER_ERROR
    code, message = read_outcome(place)
    assert code == EXIT_USER_ERROR
    assert "swept.py:a-dev has changed since the sweep was started" in message
    assert not (place / "config.json").exists()


def test_the_outcome_of_an_earlier_process_is_forgotten_at_a_new_start(grid, tmp_path):
    run = grid.dev_runs("a")[0]
    place = run.folder(tmp_path)
    write_job(place, run, "final")
    (place / OUTCOME_FILE).write_text('{"code": 2, "message": "error: x"}')
    assert read_outcome(place) == (2, "error: x")
    write_job(place, run, "final")
    assert read_outcome(place) is None
