"""Which runs a sweep has, what is chosen, and what an identity tells apart."""

import dataclasses
import math

import pytest
from made import result_of

from vit_jax.sweeps.grid import Grid, _described, identity_of, load_grid
from vit_jax.types import UserError


def results_of(grid, task, scores):
    return {run.key: result_of(run, score) for run, score in zip(grid.dev_runs(task), scores, strict=True)}


def test_every_candidate_is_tried_once_and_the_best_gets_every_seed(grid):
    assert [run.key for run in grid.known_runs({})] == [
        "a/dev-lr0.1-seed0",
        "a/dev-lr0.2-seed0",
        "a/dev-lr0.4-seed0",
        "b/dev-lr0.1-seed0",
        "b/dev-lr0.2-seed0",
        "b/dev-lr0.4-seed0",
    ]
    known = [run.key for run in grid.known_runs(results_of(grid, "b", [0.1, 0.7, 0.3]))]
    assert known[6:] == ["b/final-lr0.2-seed0", "b/final-lr0.2-seed1"]
    assert grid.num_runs == 2 * (3 + 2)


def test_of_equal_candidates_the_first_is_chosen(grid):
    assert grid.choose("a", results_of(grid, "a", [0.5, 0.5, 0.4])) == {"optim.lr": 0.1}


def test_a_candidate_that_diverged_is_not_chosen(grid):
    assert grid.choose("a", results_of(grid, "a", [math.nan, 0.2, math.nan])) == {"optim.lr": 0.2}
    assert grid.choose("a", results_of(grid, "a", [math.nan] * 3)) == {"optim.lr": 0.1}


def test_where_the_work_is_done_is_no_part_of_what_is_asked(config_file):
    plain, moved, other = (
        load_grid(str(config_file), [("data.workers", n), ("data.data_dir", where), ("data.recipe", recipe)])
        for n, where, recipe in (("0", "a", "eval"), ("2", "b", "eval"), ("0", "a", "finetune"))
    )
    assert plain.sweep == moved.sweep
    assert plain.sweep.title == "Two of them (with data.recipe=eval)"
    identities = [identity_of(g.dev_runs("a")[0]) for g in (plain, moved, other)]
    assert identities[0] == identities[1] != identities[2]


def test_nothing_is_chosen_before_every_candidate_is_scored(grid):
    scored = results_of(grid, "a", [0.5, 0.9, 0.4])
    scored.pop("a/dev-lr0.4-seed0")
    assert grid.choose("a", scored) is None


def test_averaged_weights_decide_where_there_are_some(grid):
    scored = results_of(grid, "a", [0.9, 0.1, 0.1])
    key = "a/dev-lr0.2-seed0"
    scored[key] = dataclasses.replace(scored[key], average_scores={"top1": 0.95})
    assert grid.choose("a", scored) == {"optim.lr": 0.2}


def test_one_candidate_needs_no_development_run(grid):
    alone = Grid(dataclasses.replace(grid.sweep, candidates={"optim.lr": (0.1,)}), grid.configs, (), "train")
    assert [run.key for run in alone.known_runs({})] == [
        f"{task}/final-lr0.1-seed{seed}" for task in "ab" for seed in (0, 1)
    ]
    assert alone.num_runs == 4


def test_several_keys_make_every_combination(grid):
    both = dataclasses.replace(grid.sweep, candidates={"optim.lr": (1, 2), "data.flip": (True, False)})
    runs = Grid(both, grid.configs, (), "train").dev_runs("a")
    assert [run.name for run in runs] == [
        "dev-lr1-flipTrue-seed0",
        "dev-lr1-flipFalse-seed0",
        "dev-lr2-flipTrue-seed0",
        "dev-lr2-flipFalse-seed0",
    ]


def test_a_value_with_letters_that_no_workdir_can_have_is_spelt_in_the_folder_s_name(grid):
    splits = dataclasses.replace(grid.sweep, candidates={"data.split": ("train[:50%]", "a/b", "train")})
    runs = Grid(splits, grid.configs, (), "train").dev_runs("a")
    assert [run.name for run in runs] == [
        "dev-splittrain%5B:50%%5D-seed0",
        "dev-splita%2Fb-seed0",
        "dev-splittrain-seed0",
    ]
    assert runs[0].overrides[-2] == ("data.split", "train[:50%]")


def test_a_task_without_data_has_no_runs(grid):
    tasks = (dataclasses.replace(grid.sweep.tasks[0], missing="not prepared"), grid.sweep.tasks[1])
    without = Grid(dataclasses.replace(grid.sweep, tasks=tasks), grid.configs, (), "train")
    assert {run.task for run in without.known_runs({})} == {"b"}
    assert without.num_runs == 5


def test_a_run_is_a_command_with_overrides(grid, config_file):
    run = grid.final_runs("b", {"optim.lr": 0.4})[1]
    assert run.config == f"{config_file}:b"
    assert run.overrides == (("train.duration", "5"), ("optim.lr", "0.4"), ("seed", "1"))


def test_few_shot_seeds_wait_for_the_features_of_the_first(grid):
    runs = Grid(grid.sweep, grid.configs, (), "fewshot").final_runs("a", {})
    assert [(run.name, run.after) for run in runs] == [("final-seed0", ""), ("final-seed1", "final-seed0")]


def test_an_identity_changes_with_the_config_file_and_the_overrides(grid, config_file):
    first, second = grid.dev_runs("a")[:2]
    before = identity_of(first)
    assert before == identity_of(first) != identity_of(second)
    config_file.write_text(config_file.read_text().replace("0.5", "0.6"))
    assert identity_of(first) == before  # this process has read it
    _described.cache_clear()
    assert identity_of(first) != before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("(0.1, 0.2, 0.4)", "()", r"the grid is empty, there are no optim\.lr"),
        ('"seeds": (0, 1)', '"seeds": ()', "the grid is empty, there are no seeds"),
        ("(0.1, 0.2, 0.4)", "(0.1, 0.1)", r"optim\.lr names a value twice: 0\.1, 0\.1"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(config_file, old, new, message):
    config_file.write_text(config_file.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        load_grid(str(config_file), [])


def test_a_task_named_twice_is_refused(config_file):
    with pytest.raises(UserError, match="tasks names a value twice: a, a"):
        load_grid(f"{config_file}:a+a", [])


@pytest.mark.parametrize("key", ["optim.lr", "seed"])
def test_what_the_sweep_varies_cannot_be_overridden(config_file, key):
    with pytest.raises(UserError, match=f"--config.{key} is what the sweep varies; give its values as an argument"):
        load_grid(str(config_file), [(key, "1")])


def test_a_config_of_one_run_is_no_sweep(tmp_path):
    (tmp_path / "one.py").write_text("def get_config(arg=None): return {}")
    with pytest.raises(UserError, match="describes one run and no sweep"):
        load_grid(str(tmp_path / "one.py"), [])
    with pytest.raises(UserError, match="does not exist"):
        load_grid(str(tmp_path / "none.py"), [])
