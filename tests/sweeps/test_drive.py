"""The driver with an executor that runs nothing: what is started, retried, refused, and counted once."""

import dataclasses
import json

import pytest
from made import SCORES, Pretending, leave_result, succeed

from vit_jax.process import EXIT_INTERRUPTED, EXIT_USER_ERROR
from vit_jax.sweeps import drive as driving
from vit_jax.sweeps.drive import claim, collect, drive, without_data
from vit_jax.sweeps.grid import Grid, _described, load_grid
from vit_jax.sweeps.job import OUTCOME_FILE, write_job
from vit_jax.sweeps.results import read_result, read_sweep
from vit_jax.types import UserError


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(driving, "POLL_S", 0.0)


def go(grid, folder, executor, retries=2):
    seen = []
    return drive(grid, folder, executor, retries=retries, keep="final", show=seen.append), seen


def test_a_sweep_runs_to_its_end_within_its_slots(grid, tmp_path):
    executor = Pretending(succeed(grid))
    last, seen = go(grid, tmp_path, executor)
    assert len(last.results) == last.total == 10
    assert sorted(executor.started) == sorted(last.results)  # each exactly once
    assert executor.most == 2
    assert {key for key in last.results if "final" in key} == {
        f"{task}/final-lr0.2-seed{seed}" for task in "ab" for seed in (0, 1)
    }
    assert len(seen[0].running) == 2


def test_started_again_it_does_only_what_is_missing(grid, tmp_path):
    for run in grid.dev_runs("a"):
        leave_result(tmp_path, run, SCORES[run.candidate["optim.lr"]])
    executor = Pretending(succeed(grid))
    last, _ = go(grid, tmp_path, executor)
    assert len(last.results) == 10
    assert last.began == 3
    assert len(executor.started) == 7
    again = Pretending(succeed(grid))
    assert go(grid, tmp_path, again)[0].results == last.results
    assert again.started == []


def test_a_run_of_an_earlier_driver_is_watched_and_not_started(grid, tmp_path):
    first = grid.dev_runs("a")[0]
    write_job(first.folder(tmp_path), first, "final")
    executor = Pretending(succeed(grid), slots=1, adopted={first.key})
    last, _ = go(grid, tmp_path, executor)
    assert len(last.results) == 10
    assert "a/dev-lr0.1-seed0" not in executor.started


def test_a_crash_is_retried_a_bounded_number_of_times(grid, tmp_path):
    well = succeed(grid)

    def behave(folder):
        if folder.parent.name == "a" and folder.name == "dev-lr0.2-seed0":
            (folder / "log.txt").write_text("Killed\nout of memory\n")
        else:
            well(folder)

    executor = Pretending(behave)
    last, _ = go(grid, tmp_path, executor, retries=2)
    assert executor.started.count("a/dev-lr0.2-seed0") == 3
    assert list(last.failed) == ["a/dev-lr0.2-seed0"]
    assert "crashed 3 times" in last.failed["a/dev-lr0.2-seed0"]
    assert last.failed["a/dev-lr0.2-seed0"].endswith("out of memory")
    assert not [key for key in last.results if key.startswith("a/final")]  # nothing is chosen without it
    assert len([key for key in last.results if key.startswith("b/")]) == 5


def test_an_interrupted_run_is_started_again_however_often(grid, tmp_path):
    well, stops = succeed(grid), {"left": 7}

    def behave(folder):
        if folder.name == "dev-lr0.1-seed0" and stops["left"]:
            stops["left"] -= 1
            (folder / OUTCOME_FILE).write_text(json.dumps({"code": EXIT_INTERRUPTED, "message": "stopped"}))
        else:
            well(folder)

    last, _ = go(grid, tmp_path, Pretending(behave), retries=0)
    assert len(last.results) == 10
    assert last.failed == {}


def test_what_the_user_has_to_put_right_is_told_and_not_retried(grid, tmp_path):
    well = succeed(grid)

    def behave(folder):
        if folder.parent.name == "b":
            said = {"code": EXIT_USER_ERROR, "message": "error: checkpoint x.npz does not exist"}
            (folder / OUTCOME_FILE).write_text(json.dumps(said))
        else:
            well(folder)

    executor = Pretending(behave)
    last, _ = go(grid, tmp_path, executor)
    assert set(last.failed.values()) == {"checkpoint x.npz does not exist"}
    assert len(last.failed) == 3
    assert len(executor.started) == len(set(executor.started))
    assert len([key for key in last.results if key.startswith("a/")]) == 5


def test_a_result_of_another_config_is_refused(grid, config_file, tmp_path):
    run = grid.dev_runs("a")[0]
    leave_result(tmp_path, run, 0.5)
    config_file.write_text(config_file.read_text().replace("0.5", "0.6"))
    _described.cache_clear()  # as a new process
    with pytest.raises(UserError, match=r"dev-lr0\.1-seed0/result\.json is of another config"):
        collect(load_grid(str(config_file), [("train.duration", "5")]), tmp_path, {})
    assert read_result(run.folder(tmp_path)) is not None  # and nothing was lost


def test_a_damaged_result_is_named(grid, tmp_path):
    run = grid.dev_runs("a")[0]
    leave_result(tmp_path, run, 0.5)
    file = run.folder(tmp_path) / "result.json"
    whole = file.read_text()
    for text in (whole[: len(whole) // 2], "[]", '{"task": "a"}'):
        file.write_text(text)
        with pytest.raises(UserError, match=r"result\.json .*remove it"):
            collect(grid, tmp_path, {})


def test_another_sweep_on_the_same_folder_is_refused(grid, tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    claim(folder, grid)
    leave_result(folder, grid.dev_runs("a")[0], 0.5)
    other = Grid(
        dataclasses.replace(grid.sweep, candidates={"optim.lr": (1.0,)}, label="large"), grid.configs, (), "train"
    )
    with pytest.raises(UserError, match="holds another sweep") as caught:
        claim(folder, other)
    assert "label: 'tiny' -> 'large'" in str(caught.value)
    assert "candidates: " in str(caught.value)
    assert read_sweep(folder) == grid.sweep


def test_a_checkpoint_that_is_replaced_is_another_sweep(grid, tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    begun, now = (dataclasses.replace(grid, sweep=dataclasses.replace(grid.sweep, weights=w)) for w in ("a", "b"))
    claim(folder, begun)
    leave_result(folder, grid.dev_runs("a")[0], 0.5)
    claim(folder, begun)
    with pytest.raises(UserError, match="weights: the files of the checkpoint that its runs start from are others"):
        claim(folder, now)


def test_seeds_and_tasks_may_be_added_and_none_taken_away(grid, tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    claim(folder, grid)
    leave_result(folder, grid.dev_runs("a")[0], 0.5)
    more = dataclasses.replace(
        grid.sweep, seeds=(0, 1, 2), tasks=(*grid.sweep.tasks, dataclasses.replace(grid.sweep.tasks[0], name="c"))
    )
    claim(folder, Grid(more, grid.configs, (), "train"))
    assert read_sweep(folder) == more
    with pytest.raises(UserError, match=r"tasks: without c\n  seeds: \(0, 1, 2\) -> \(0, 1\)"):
        claim(folder, grid)


def test_what_differs_is_told_in_the_words_that_were_typed(config_file, tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    begun = load_grid(f"{config_file}:a", [("train.duration", "5"), ("data.data_dir", "here")])
    claim(folder, begun)
    leave_result(folder, begun.dev_runs("a")[0], 0.5)
    with pytest.raises(UserError) as told:
        claim(folder, load_grid(f"{config_file}:a", [("train.duration", "6"), ("data.data_dir", "there")]))
    assert str(told.value).splitlines()[1:] == ["  config.train.duration: '5' -> '6'"]
    light = dataclasses.replace(begun.sweep, title="Light", config=f"{config_file}:a,protocol=light,seeds=3")
    with pytest.raises(UserError) as told:
        claim(folder, dataclasses.replace(begun, sweep=light))
    assert str(told.value).splitlines()[1:] == ["  protocol: '(absent)' -> 'light'"]


def test_a_sweep_that_has_saved_nothing_may_be_corrected(grid, config_file, tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    claim(folder, grid)
    run = grid.dev_runs("a")[0].folder(folder)
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")  # it began and was stopped
    corrected = load_grid(str(config_file), [("train.duration", "6")])
    claim(folder, corrected)
    assert read_sweep(folder) == corrected.sweep
    (run / "checkpoints" / "3").mkdir(parents=True)
    with pytest.raises(UserError, match=r"config\.train\.duration: '6' -> '5'"):
        claim(folder, grid)


def test_a_folder_of_something_else_is_left_alone(grid, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"is not empty and holds no sweep \(found thesis\.tex\)"):
        claim(tmp_path / "s", grid)


def test_tasks_without_data_are_written_down_as_such(grid, tmp_path):
    sweep = without_data(grid.sweep, {"b": "b is not prepared"})
    assert [task.missing for task in sweep.tasks] == ["", "b is not prepared"]
    assert without_data(sweep, {}) == grid.sweep  # found again when it is there
