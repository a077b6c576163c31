"""What is wrong with a sweep's folder is said, all of it, and nothing is counted that is not the sweep's."""

import dataclasses
import json

import pytest
from folders import (
    result,
    transfer_sweep,
    write_run,
    write_sweep,
    write_vtab,
)

from vit_jax.report.collect import collect
from vit_jax.report.page import write_report
from vit_jax.sweeps.results import write_result
from vit_jax.types import UserError


def sweep_in(folder, **changes):
    sweep = transfer_sweep(**changes)
    folder.mkdir(parents=True, exist_ok=True)
    write_sweep(folder, sweep)
    return sweep


def refused(folder):
    with pytest.raises(UserError) as error:
        collect([folder])
    return str(error.value)


def test_a_folder_that_is_no_sweep_is_named(tmp_path):
    assert refused(tmp_path) == f"{tmp_path} is no sweep: it has no sweep.json; give a --workdir of `vit_jax sweep`"


def test_a_sweep_given_twice_is_no_comparison(tmp_path):
    sweep_in(tmp_path / "a")
    with pytest.raises(UserError, match="more than once"):
        collect([tmp_path / "a", tmp_path / "b" / ".." / "a"])


def test_every_result_that_cannot_be_used_is_named_at_once(tmp_path):
    sweep_in(tmp_path)
    write_run(tmp_path, result("cifar10", 0.9))
    write_run(tmp_path, result("digitz", 0.9))
    write_run(tmp_path, result("digits", 0.9, lr=0.02))
    write_run(tmp_path, result("digits", 0.9, seed=7))
    write_run(tmp_path, result("oxford_iiit_pet", 0.9, metric="top5"))
    said = refused(tmp_path).splitlines()
    assert said[0].startswith("4 result files cannot be used")
    found = "\n".join(said[1:])
    assert "task 'digitz' is not in the sweep; did you mean 'digits'?" in found
    assert "candidate optim.lr=0.02 is not in the sweep, which tries [0.001, 0.003, 0.01, 0.03]" in found
    assert "seed 7 is not in the sweep, which runs [0, 1, 2]" in found
    assert "no number for the sweep's metric 'top1'; it has top5" in found
    assert len(said) == 5


DEEP = "[" * 100_000
DAMAGES = ("", "3", "[]", '"x"', "null", "{", DEEP, '{"task": "cifar10"}', "\udcff{}", '{"a": 1e999, "b": NaN}')


@pytest.mark.parametrize("text", DAMAGES, ids=range(len(DAMAGES)))
def test_a_damaged_result_is_named_on_the_page_and_left_out(tmp_path, text):
    sweep_in(tmp_path)
    for seed in (0, 1):
        write_run(tmp_path, result("cifar10", 0.9, seed=seed))
    torn = write_run(tmp_path, result("cifar10", 0.1, seed=2)) / "result.json"
    torn.write_text(text, errors="surrogateescape")
    (entry,) = collect([tmp_path])
    assert entry.tasks[0].by_seed() == {0: 0.9, 1: 0.9}
    (said,) = entry.damaged
    assert str(torn) in said
    assert said.endswith("; remove it, and the run is done again")
    progress = write_report([tmp_path], tmp_path / "page")
    assert progress.damaged == (said,)
    assert f"Left out: {torn}" in (tmp_path / "page" / "index.html").read_text()


@pytest.mark.parametrize("text", DAMAGES, ids=range(len(DAMAGES)))
def test_a_damaged_sweep_is_one_message(tmp_path, text):
    sweep_in(tmp_path)
    (tmp_path / "sweep.json").write_text(text, errors="surrogateescape")
    assert refused(tmp_path).startswith(f"{tmp_path}/sweep.json ")


def test_a_run_is_never_counted_twice(tmp_path):
    sweep_in(tmp_path)
    first = write_run(tmp_path, result("cifar10", 0.9))
    again = tmp_path / "runs" / "cifar10" / "zz-copy"
    again.mkdir()
    write_result(again, result("cifar10", 0.9))
    assert f"it repeats the run of {first}" in refused(tmp_path)


def test_a_result_of_another_tasks_folder_is_refused(tmp_path):
    sweep_in(tmp_path)
    folder = write_run(tmp_path, result("cifar10", 0.9))
    write_result(folder, result("digits", 0.9))
    assert "of task 'digits' and lies in the folder of 'cifar10'" in refused(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"scores": [0.9]},
        {"scores": {"top1": "0.9"}},
        {"scores": {"top1": True}},
        {"seed": 1.5},
        {"num_examples": 10**400},
        {"resolution": [384]},
        {"class_names": "cat"},
        {"phase": "test"},
        {"splits": None},
        {"more": 1},
    ],
    ids=str,
)
def test_a_result_with_other_fields_or_types_is_left_out(tmp_path, changed):
    sweep_in(tmp_path)
    file = write_run(tmp_path, result("cifar10", 0.9)) / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    (entry,) = collect([tmp_path])
    assert entry.runs == []
    assert f"{file} is damaged or of another version" in entry.damaged[0]
    assert next(iter(changed)) in entry.damaged[0]


def test_final_runs_must_have_one_candidate(tmp_path):
    sweep_in(tmp_path)
    write_run(tmp_path, result("cifar10", 0.9, seed=0, lr=0.01))
    write_run(tmp_path, result("cifar10", 0.9, seed=1, lr=0.03))
    assert "different candidates (seed 0: optim.lr 0.01, seed 1: optim.lr 0.03)" in refused(tmp_path)


def test_runs_are_counted_against_what_the_sweep_asks_for(tmp_path):
    sweep_in(tmp_path)  # 3 tasks, each 4 learning rates and 3 seeds
    for lr in (0.001, 0.03):
        write_run(tmp_path, result("cifar10", 0.5, phase="dev", lr=lr))
    write_run(tmp_path, result("cifar10", 0.6, lr=0.03))
    (entry,) = collect([tmp_path])
    assert (entry.done, entry.expected) == (3, 21)


def test_one_candidate_needs_no_development_runs_and_a_task_without_data_no_runs(tmp_path):
    tasks = transfer_sweep().tasks
    tasks = (dataclasses.replace(tasks[0], missing="not prepared"), *tasks[1:])
    sweep_in(tmp_path, tasks=tasks, candidates={"optim.lr": (0.01,)})
    (entry,) = collect([tmp_path])
    assert (entry.done, entry.expected) == (0, 6)


def test_a_task_that_was_done_before_its_data_went_away_counts(tmp_path):
    tasks = transfer_sweep().tasks
    tasks = tuple(dataclasses.replace(task, missing="not prepared") for task in tasks)
    sweep_in(tmp_path, tasks=tasks, seeds=(0, 1), candidates={"optim.lr": (0.01,)})
    for task, seeds in ((tasks[0], (0, 1)), (tasks[1], (0,))):
        for seed in seeds:
            write_run(tmp_path, result(task.name, 0.5, seed=seed))
    (entry,) = collect([tmp_path])
    assert [task.finished for task in entry.tasks] == [True, False, False]
    assert (entry.done, entry.expected) == (2, 2)


def test_tasks_that_a_table_could_not_tell_apart_are_refused(tmp_path):
    task = transfer_sweep().tasks[0]
    sweep_in(tmp_path, tasks=(task, dataclasses.replace(task, name="again")))
    assert "several tasks of the title CIFAR-10" in refused(tmp_path)


def test_the_averaged_weights_score_counts_where_there_is_one(tmp_path):
    sweep_in(tmp_path, seeds=(0,))
    write_run(tmp_path, result("cifar10", 0.8, average_scores={"top1": 0.85}))
    (entry,) = collect([tmp_path])
    assert entry.tasks[0].by_seed() == {0: 0.85}


def test_a_vtab_sweep_reads_back_whole(tmp_path):
    write_vtab(tmp_path)
    (entry,) = collect([tmp_path])
    assert (entry.done, entry.expected) == (57, 57)


def test_equal_labels_are_told_apart_by_their_folders(tmp_path):
    write_vtab(tmp_path / "a", seeds=(0,))
    write_vtab(tmp_path / "b", seeds=(0,))
    assert [entry.label for entry in collect([tmp_path / "a", tmp_path / "b"])] == [
        "ViT-Ti/16 (ours) (a)",
        "ViT-Ti/16 (ours) (b)",
    ]
