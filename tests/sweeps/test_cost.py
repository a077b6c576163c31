"""The cost of a sweep before it runs, and every mistake that is found then. FLOPs are worked out by hand."""

import shutil

import pytest

from vit_jax.run.assemble import Parts
from vit_jax.sweeps.cost import Cost, check_tasks, cost_of, describe_state
from vit_jax.sweeps.grid import load_grid
from vit_jax.types import UserError

FINETUNE = "configs/finetune.py:variant=B/16,smoke"
TINY = [("model.width", "16"), ("model.depth", "1"), ("model.mlp_dim", "16"), ("model.num_heads", "2")]
# 48x48 pixels in patches of 16x16: 9 tokens of width 16 and a class token; 2 FLOPs for a multiply and an add.
PATCHES = 2 * 9 * 16 * 16 * 3 * 16
BLOCK = 2 * 10 * (4 * 16 * 16 + 2 * 16 * 16) + 4 * 10 * 10 * 16
HEAD = 2 * 16 * 10


def swept(spec, data_dir, **more):
    overrides = [*TINY, ("data.data_dir", data_dir), ("train.duration", "4")]
    return load_grid(spec, overrides + [(key.replace("__", "."), value) for key, value in more.items()])


@pytest.mark.slow
def test_a_run_costs_its_steps_and_what_they_compute_and_a_program_is_traced_once(data_dir, monkeypatch):
    grid = swept(f"{FINETUNE},dataset=cifar10,lr=0.01+0.03,seeds=1", data_dir)
    first, second = grid.dev_runs("cifar10")
    traced = {}
    cost = cost_of(first, traced)
    assert (cost.steps, cost.examples) == (4, 4 * 64)
    # Forward, and twice as much backward, but for the gradient of the pixels, which nothing needs.
    assert cost.flops == 4 * 64 * (3 * (PATCHES + BLOCK + HEAD) - PATCHES)
    monkeypatch.setattr(Parts, "trace", None)
    assert cost_of(second, traced) == cost


def test_the_first_few_shot_run_of_a_task_pays_for_the_features_of_all(checkpoint, data_dir):
    overrides = [("data_dir", data_dir), ("test_split", "test[:100]")]
    grid = load_grid(f"configs/fewshot.py:init={checkpoint},sets=digits,shots=1,seeds=2", overrides)
    first, second = grid.final_runs("digits", {})
    # 8x8 pixels in patches of 4x4: 4 tokens of width 16 and a class token; no head.
    forward = 2 * 4 * 4 * 4 * 3 * 16 + 2 * 5 * (4 * 16 * 16 + 2 * 16 * 16) + 4 * 5 * 5 * 16
    assert cost_of(first, {}) == Cost(0, 1437 + 100, (1437 + 100) * forward)
    assert cost_of(second, {}) == Cost(0, 0, 0)


def test_a_task_without_data_is_named_and_the_others_are_checked_all_the_same(checkpoint, data_dir):
    grid = swept(
        "configs/finetune.py:variant=Ti/16,dataset=cifar10+digits,lr=0.01,seeds=1", data_dir, optim__warmup="1"
    )
    missing, weights = check_tasks(grid)
    assert list(missing) == ["cifar10"]
    assert "vit_jax prepare cifar10" in missing["cifar10"]
    assert weights == ""  # no checkpoint
    probes = load_grid(f"configs/fewshot.py:init={checkpoint},sets=dtd+digits", [("data_dir", data_dir)])
    missing, weights = check_tasks(probes)
    assert list(missing) == ["dtd"]
    assert "vit_jax prepare dtd" in missing["dtd"]
    assert len(weights) == 16


def test_what_every_run_would_refuse_is_an_error_and_no_missing_task(data_dir):
    grid = swept(f"{FINETUNE},dataset=cifar10,lr=0.01,seeds=1", data_dir, checkpoint__best_metric="top1")
    with pytest.raises(UserError, match=r"checkpoint\.best_metric is 'top1'; expected one of eval/test/METRIC"):
        check_tasks(grid)
    with pytest.raises(UserError, match=r"no/such\.npz"):
        check_tasks(load_grid("configs/fewshot.py:init=no/such.npz,sets=digits", [("data_dir", data_dir)]))


def test_another_file_under_a_checkpoints_name_is_another_checkpoint(checkpoint, data_dir, tmp_path):
    init = tmp_path / "start.npz"
    shutil.copy2(checkpoint, init)
    grid = load_grid(f"configs/fewshot.py:init={init},sets=digits", [("data_dir", data_dir)])
    before = check_tasks(grid)[1]
    assert check_tasks(grid)[1] == before
    shutil.copy(checkpoint, init)  # the same bytes at another time: the file was replaced
    assert check_tasks(grid)[1] != before


def test_a_half_done_run_says_how_far_it_came(grid, tmp_path):
    run = grid.dev_runs("a")[0]
    assert describe_state(run, tmp_path, done=False) == "to do"
    for step in ("8", "16", "24.orbax-checkpoint-tmp"):
        (run.folder(tmp_path) / "checkpoints" / step).mkdir(parents=True)
    assert describe_state(run, tmp_path, done=False) == "half done, step 16"
    assert describe_state(run, tmp_path, done=True) == "done"
