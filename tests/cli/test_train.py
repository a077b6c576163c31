"""`vit_jax train`: its exit codes, what it says before a run, and how it joins the other processes."""

import contextlib
from types import SimpleNamespace

import pytest

from vit_jax import peers
from vit_jax.cli import train
from vit_jax.process import EXIT_INTERRUPTED
from vit_jax.run import execute
from vit_jax.train.loop import Interrupted
from vit_jax.types import UserError

CONFIG = "--config=configs/quickstart.py:pretrain,smoke"


@pytest.fixture
def runs(monkeypatch):
    """The calls of `run`, which trains nothing."""
    calls = []

    def run(config, workdir, **settings):
        calls.append(SimpleNamespace(config=config, workdir=workdir, **settings))
        return SimpleNamespace(step=20, seconds=61.4, workdir=workdir)

    monkeypatch.setattr(execute, "run", run)
    monkeypatch.setattr(train, "set_up_process", lambda: None)
    return calls


def ends(monkeypatch, error):
    def run(*_, **__):
        raise error

    monkeypatch.setattr(execute, "run", run)


def test_a_run_gets_its_config_workdir_and_overrides_and_says_where_it_all_is(runs, capsys):
    assert train.main([CONFIG, "--workdir=here", "--config.optim.lr=0.5", "--config.init=x.npz", "--extend"]) == 0
    (call,) = runs
    assert (call.workdir, call.overrides) == ("here", [("optim.lr", "0.5"), ("init", "x.npz")])
    assert (call.extend, call.wait, call.config.train.duration) == (True, False, "20 steps")
    said = capsys.readouterr().out
    assert said == "done: step 20, 61 s; results, curves and checkpoints are in here\n"


def test_a_stopped_run_exits_with_75_and_a_mistake_with_2(runs, monkeypatch, capsys):
    ends(monkeypatch, Interrupted("stopped after step 7 of 20 and saved; the same command resumes"))
    assert train.main([CONFIG, "--workdir=here"]) == EXIT_INTERRUPTED
    assert capsys.readouterr().out == "stopped after step 7 of 20 and saved; the same command resumes\n"
    ends(monkeypatch, UserError("no such data"))
    assert train.main([CONFIG, "--workdir=here"]) == 2
    assert capsys.readouterr().err == "error: no such data\n"


@pytest.mark.parametrize(("count", "wait"), [("0", False), ("1", True)])
def test_only_a_job_that_slurm_starts_again_waits_for_its_first_process(runs, monkeypatch, count, wait):
    monkeypatch.setenv("SLURM_RESTART_COUNT", count)
    train.main([CONFIG, "--workdir=here"])
    assert runs[0].wait is wait


@pytest.mark.parametrize(
    ("words", "noted"),
    [
        (["--config.optim.name=sgd"], True),
        (["--config.optim.name=sgd", "--config.optim.lr=0.03"], False),
        (["--config.optim.name=adam"], False),
        ([], False),
    ],
)
def test_another_optimizer_with_the_rate_of_the_first_is_noted(runs, capsys, words, noted):
    train.main([CONFIG, "--workdir=here", *words])
    note = (
        "note: optim.name is sgd and optim.lr stays 0.002, which was chosen for adam; set it with --config.optim.lr\n"
    )
    assert (note in capsys.readouterr().out) == noted


def test_the_processes_of_a_run_join_before_anything_else(runs, monkeypatch):
    order = []

    @contextlib.contextmanager
    def joined(*where, **times):
        order.append((where, times, len(runs)))
        yield
        order.append("left")

    monkeypatch.setattr(peers, "joined", joined)
    assert (
        train.main(
            [CONFIG, "--workdir=here", "--coordinator=h:1", "--num_processes=2", "--process-id=1", "--meeting-s=9"]
        )
        == 0
    )
    assert order == [(("h:1", 2, 1), {"meeting_s": 9, "heartbeat_s": 30}, 0), "left"]
    assert len(runs) == 1
    train.main([CONFIG, "--workdir=here"])
    assert len(order) == 2  # alone


def test_a_dry_run_trains_nothing(runs, monkeypatch, capsys):
    monkeypatch.setattr(execute, "dry_run", lambda config, workdir, **settings: f"the plan of {workdir}, {settings}")
    assert train.main([CONFIG, "--workdir=here", "--dry-run", "--config.seed=1"]) == 0
    assert capsys.readouterr().out == "the plan of here, {'overrides': [('seed', '1')], 'extend': False}\n"
    assert runs == []
