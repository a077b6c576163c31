"""One task's part of the page: what was tried and chosen, what is not done, and links that work from disk."""

import dataclasses
import math

import pytest
from folders import result, transfer_sweep, write_mistakes, write_predictions, write_run, write_sweep

from vit_jax.report.collect import collect
from vit_jax.report.tasks import href, task_views


@pytest.fixture
def views(tmp_path):
    """The tasks of a sweep with these runs, seen from a page in FOLDER/report."""

    def write(*runs, name="s", **changes):
        folder = tmp_path / name
        folder.mkdir()
        write_sweep(folder, transfer_sweep(**changes))
        for run in runs:
            write_run(folder, run)
        return task_views("s0", list(enumerate(collect([folder]))), folder / "report")

    return write


def test_candidates_stand_in_the_order_of_their_values_with_the_spread_over_seeds(views):
    dev = [(0.03, 0, 0.5), (0.001, 0, 0.25), (0.001, 1, 0.35), (0.01, 0, math.nan)]
    runs = [result("digits", score, phase="dev", lr=lr, seed=seed) for lr, seed, score in dev]
    (view,) = views(*runs, result("digits", 0.625, lr=0.03), titles=("Digits",))
    (side,) = view.sides
    tried = [(t.candidate, t.score.text, t.chosen) for t in side.tried]
    assert tried[0] == ("optim.lr 0.001", "30.00 ± 7.07", False)  # the deviation of 25 and 35 is 10 / sqrt(2)
    assert [(candidate, chosen) for candidate, _, chosen in tried[1:]] == [
        ("optim.lr 0.01", False),
        ("optim.lr 0.03", True),
    ]
    assert (side.chosen, side.score.text) == ("optim.lr 0.03", "62.50†")
    assert side.note == ""


@pytest.mark.parametrize(
    ("runs", "status"),
    [
        ([], "no run is done yet"),
        ([result("digits", 0.5, phase="dev", lr=0.01)], "unfinished: 0 of 2 seeds"),
        ([result("digits", 0.5)], "unfinished: 1 of 2 seeds"),
        (
            [result("digits", math.nan), result("digits", 0.5, seed=1)],
            "unfinished: 1 of 2 seeds; no number from seed 0",
        ),
        ([result("digits", 0.5), result("digits", 0.5, seed=1)], ""),
    ],
)
def test_the_status_says_which_seeds_are_missing_and_which_have_no_number(views, runs, status):
    (view,) = views(*runs, titles=("Digits",), seeds=(0, 1))
    assert (view.sides[0].status, view.sides[0].brief) == (status, status)


def test_a_task_without_data_is_brief_in_the_list_and_gives_the_reason_in_its_part(views):
    tasks = tuple(dataclasses.replace(task, missing="run `vit_jax prepare`") for task in transfer_sweep().tasks[:1])
    (view,) = views(tasks=tasks)
    assert (view.sides[0].brief, view.sides[0].status) == ("no data", "no data: run `vit_jax prepare`")


def test_a_choice_that_the_development_split_does_not_support_is_noted(views):
    better = [result("digits", score, phase="dev", lr=lr) for lr, score in ((0.001, 0.7), (0.003, 0.9), (0.01, 0.7))]
    (view,) = views(*better, result("digits", 0.5, lr=0.001), name="a", titles=("Digits",))
    text = "The final runs have optim.lr 0.001; on the development split optim.lr 0.003 is better."
    assert view.sides[0].note == text
    (view,) = views(*better, result("digits", 0.5, lr=0.03), name="b", titles=("Digits",))
    assert view.sides[0].note == "The final runs' candidate has no score on the development split."
    tie = [result("digits", 0.7, phase="dev", lr=lr) for lr in (0.001, 0.01)]
    (view,) = views(*tie, result("digits", 0.5, lr=0.01), name="c", titles=("Digits",))
    assert view.sides[0].note == ""  # as good as any


def test_links_lead_from_the_page_to_the_files_that_exist(tmp_path):
    folder = tmp_path / "runs of 100% & more"
    folder.mkdir()
    write_sweep(folder, transfer_sweep(titles=("Digits",), seeds=(0,)))
    averaged = {"scores": {"top1": 0.5}, "average_scores": {"top1": 0.75}, "num_examples": 4}
    run = write_run(folder, result("digits", 0.5, **averaged))
    write_predictions(run, [0, 0, 1, 1], [0, 0, 1, 0])
    write_mistakes(run, label=1, predicted=0)
    (run / "log.txt").unlink()
    (view,) = task_views("s0", list(enumerate(collect([folder]))), tmp_path / "pages" / "deep")
    (line,) = view.sides[0].runs
    place = "../../runs%20of%20100%25%20%26%20more/runs/digits/final-lr0.01-seed0"
    assert line.links == (("result.json", f"{place}/result.json"), ("config.json", f"{place}/config.json"))
    assert (line.name, line.score, line.last) == ("final, seed 0", "75.00", "50.00")  # averaged, and the last weights
    (picture,) = view.sides[0].pictures
    assert (picture.href, picture.label, picture.predicted) == (f"{place}/mistakes/0.png", "dog", "cat")
    assert (picture.confidence, picture.small) == ("99.2%", True)
    assert href(tmp_path / "a" / "é?.png", tmp_path) == "a/%C3%A9%3F.png"


def test_tasks_of_two_sweeps_share_their_part_and_every_part_has_an_anchor_of_its_own(tmp_path):
    tasks = [dataclasses.replace(task, name=name) for task, name in zip(transfer_sweep().tasks, "Ä/Ü", strict=True)]
    for name, some in (("a", tasks[:2]), ("b", tasks[1:])):
        (tmp_path / name).mkdir()
        write_sweep(tmp_path / name, transfer_sweep(label=name, tasks=tuple(some)))
    entries = list(enumerate(collect([tmp_path / "a", tmp_path / "b"])))
    found = task_views("s0", entries, tmp_path)
    assert [[side.label for side in view.sides] for view in found] == [["a"], ["a", "b"], ["b"]]
    assert [[side.place for side in view.sides] for view in found] == [[0], [0, 1], [1]]
    assert [view.anchor for view in found] == ["s0-0-task", "s0-1-task", "s0-2-task"]
