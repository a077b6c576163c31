"""A sweep from its config file to its exit code, with an executor that runs nothing."""

import json
import logging
import os
import signal

import pytest
from made import Pretending, leave_result, succeed

from vit_jax.process import EXIT_INTERRUPTED
from vit_jax.sweeps import drive, perform
from vit_jax.sweeps.cost import Cost
from vit_jax.types import UserError

TOLD = [("train.duration", "5")]  # as the grid of the fixture


@pytest.fixture(autouse=True)
def without_checks(monkeypatch):
    """No data is opened; tests say what is missing. The logger is as before afterwards."""
    monkeypatch.setattr(drive, "POLL_S", 0.0)
    monkeypatch.setattr(perform, "check_tasks", lambda grid: ({}, "weights"))
    monkeypatch.setattr(logging.getLogger("vit_jax.data.vtab.source"), "filters", [])


@pytest.fixture
def start(config_file, tmp_path, capsys):
    """Performs the sweep: (exit code, standard output, standard error)."""

    def start(executor, **settings):
        code = perform.perform(str(config_file), str(tmp_path / "s"), TOLD, lambda folder: executor, **settings)
        return code, *capsys.readouterr()

    return start


def test_a_sweep_is_done_once_and_says_where_its_page_comes_from(grid, start, tmp_path):
    executor = Pretending(succeed(grid))
    code, out, err = start(executor)
    lines = out.splitlines()
    assert (code, err, len(executor.started)) == (0, "", 10)
    assert lines[0] == "Two of them (with train.duration=5): 10 runs over 2 tasks"
    assert lines[-1] == f"10 of 10 runs are done; the page: vit_jax report {tmp_path}/s"
    assert json.loads((tmp_path / "s" / "sweep.json").read_text())["weights"] == "weights"
    again = Pretending(succeed(grid))
    assert (start(again)[0], again.started) == (0, [])


def test_a_task_without_data_is_named_and_left_out_and_a_sweep_without_any_makes_no_folder(
    grid, start, tmp_path, monkeypatch
):
    missing = {"a": "a is not prepared", "b": "b is not prepared"}
    monkeypatch.setattr(perform, "check_tasks", lambda grid: (missing, ""))
    with pytest.raises(UserError, match="there is data for none of the tasks; `vit_jax prepare --check` says how"):
        start(Pretending(succeed(grid)))
    assert not (tmp_path / "s").exists()
    del missing["b"]
    code, out, _ = start(Pretending(succeed(grid)))
    assert code == 0
    assert "5 runs over 1 tasks" in out
    assert "left out, and out of every mean: a: a is not prepared" in out
    tasks = json.loads((tmp_path / "s" / "sweep.json").read_text())["tasks"]
    assert [(task["name"], task["missing"]) for task in tasks] == [("a", "a is not prepared"), ("b", "")]


def test_runs_that_fail_are_named_and_the_exit_code_says_so(grid, start):
    well = succeed(grid)
    code, out, err = start(Pretending(lambda folder: folder.parent.name == "b" and well(folder)), retries=0)
    assert code == 1
    assert "5 of 10 runs are done" in out
    assert [line.partition(": crashed")[0] for line in err.splitlines()[:-1]] == [
        f"failed: a/dev-lr{rate}-seed0" for rate in (0.1, 0.2, 0.4)
    ]
    assert err.splitlines()[-1] == "the same command tries again what is missing"


class Stopped(Pretending):
    """Its runs are stopped when something happens at their start."""

    def __init__(self, grid, happens):
        super().__init__(succeed(grid))
        self._happens = happens

    def start(self, folders):
        self._happens()

    def stop(self):
        return "its runs have saved"


def test_a_signal_stops_the_runs_and_the_same_command_resumes(grid, start):
    before = signal.getsignal(signal.SIGTERM)
    code, out, _ = start(Stopped(grid, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert code == EXIT_INTERRUPTED
    assert out.endswith("stopped: its runs have saved\n")
    assert signal.getsignal(signal.SIGTERM) is before
    assert start(Pretending(succeed(grid)))[0] == 0


@pytest.mark.parametrize("error", [UserError("sbatch took no jobs"), OSError(28, "No space left on device")])
def test_a_mistake_or_a_full_disk_while_runs_work_stops_them_and_is_reported(grid, start, error, capsys):
    def happens():
        raise error

    with pytest.raises(type(error), match=str(error).removeprefix("[Errno 28] ")):
        start(Stopped(grid, happens))
    assert capsys.readouterr().out.endswith("stopped: its runs have saved\n")


def test_a_dry_run_adds_up_what_is_done_and_what_is_left_and_writes_nothing(grid, start, tmp_path, monkeypatch):
    costs = {"dev": Cost(5, 40, 2 * 10**12), "final": Cost(10, 1_080, 3 * 10**12)}
    monkeypatch.setattr(perform, "cost_of", lambda run, traced: costs[run.phase])
    for run, score in zip(grid.dev_runs("a"), (0.1, 0.9, 0.5), strict=True):
        leave_result(tmp_path / "s", run, score)
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = start(None, only_show=True)
    assert code == 0
    lines = out.splitlines()[1:]
    assert lines[3].split() == ["a/final-lr0.2-seed0", "10", "steps", "1,080", "examples", "3.0", "TFLOP", "to", "do"]
    assert lines[0].endswith("2.0 TFLOP  done")
    assert lines[8].startswith("b/final, the best of them, seed 0 ")
    # Two tasks of 3 x 2 and 2 x 3 TFLOP, of which 3 x 2 are done.
    assert lines[-1] == "10 runs, 3 done; 24.0 TFLOP of training in all, 18.0 TFLOP to do (scoring left out)"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("flops", "text"),
    [
        (0, "0.0 GFLOP"),
        (1_234_000_000, "1.2 GFLOP"),
        (10**12, "1.0 TFLOP"),
        (1_234_500 * 10**12, "1.2 EFLOP"),
        (999 * 10**15, "999.0 PFLOP"),
        (5_678 * 10**18, "5,678.0 EFLOP"),
    ],
)
def test_flops_are_shown_in_a_unit_of_their_size(flops, text):
    assert perform.show_flops(flops) == text


def test_each_warning_passes_once():
    once = perform.Once()
    records = [logging.makeLogRecord({"msg": "%s is old", "args": (name,)}) for name in ("a", "b", "a")]
    assert [once.filter(record) for record in records] == [True, True, False]
