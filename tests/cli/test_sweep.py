"""`vit_jax sweep`: which executor its flags make, and what the sweep is given."""

import pytest

from vit_jax.cli import sweep
from vit_jax.sweeps import executors, perform, slurm

WORDS = ["--config=configs/vtab.py:init=x.npz", "--workdir=runs/s"]


@pytest.fixture
def performed(monkeypatch):
    """The arguments of `perform`, which runs nothing."""
    calls = []

    def record(*arguments, **settings):
        calls.append((arguments, settings))
        return 75

    monkeypatch.setattr(perform, "perform", record)
    return calls


def test_the_sweep_gets_its_flags_and_gives_the_exit_code(performed):
    assert sweep.main([*WORDS, "--config.train.duration=5", "--retries=0", "--keep=all", "--dry-run"]) == 75
    ((spec, workdir, overrides, _), settings) = performed[0]
    assert (spec, workdir, overrides) == ("configs/vtab.py:init=x.npz", "runs/s", [("train.duration", "5")])
    assert settings == {"retries": 0, "keep": "all", "only_show": True}
    sweep.main(WORDS)
    assert performed[1][1] == {"retries": 2, "keep": "final", "only_show": False}


@pytest.mark.parametrize(
    ("words", "gpus", "room"), [([], [], 1), ([], ["0", "1", "2"], 3), (["--parallel=2"], ["0", "1", "2"], 2)]
)
def test_runs_on_this_machine_are_as_many_as_its_gpus_or_as_asked_for(monkeypatch, tmp_path, words, gpus, room):
    monkeypatch.setattr(executors, "visible_gpus", lambda: gpus)
    executor = sweep.make_executor(sweep.make_parser().parse_args([*WORDS, *words]), tmp_path)
    assert isinstance(executor, executors.LocalExecutor)
    assert executor.room() == room


def test_slurm_gets_its_own_flags_and_sixty_four_jobs_at_a_time(monkeypatch, tmp_path):
    monkeypatch.setattr(slurm, "SlurmExecutor", lambda logs, **settings: (logs, settings))
    words = ["--executor=slurm", "--gpus=1", "--slurm=partition=gpu", "--slurm=exclusive", "--minutes=30"]
    logs, settings = sweep.make_executor(sweep.make_parser().parse_args([*WORDS, *words]), tmp_path)
    assert logs == tmp_path / "slurm"
    options = {"partition": "gpu", "exclusive": True}
    assert settings == {"parallel": 64, "minutes": 30, "cores": 8, "gpus": 1, "options": options}
