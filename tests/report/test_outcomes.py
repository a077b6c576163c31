"""A task's predictions counted over its seeds, and files that contradict its results."""

import json

import pytest
from folders import (
    result,
    transfer_sweep,
    write_mistakes,
    write_predictions,
    write_run,
    write_sweep,
)

from vit_jax.report.collect import collect
from vit_jax.report.outcomes import outcomes
from vit_jax.report.page import write_report


def sweep_in(folder, **changes):
    sweep = transfer_sweep(**changes)
    folder.mkdir(parents=True, exist_ok=True)
    write_sweep(folder, sweep)
    return sweep


DEEP = "[" * 100_000


def test_classes_and_confusion_are_counted_over_the_seeds(tmp_path):
    sweep_in(tmp_path)
    labels = [0, 0, 0, 1, 1, 2]
    for seed, predicted in enumerate(([0, 0, 1, 1, 1, 0], [0, 1, 1, 1, 0, 2])):
        top1 = sum(a == b for a, b in zip(labels, predicted, strict=True)) / 6
        found = result("cifar10", top1, seed=seed, num_examples=6, names=("cat", "dog", "owl"))
        write_predictions(write_run(tmp_path, found), labels, predicted)
    (entry,) = collect([tmp_path])
    got = outcomes(entry.tasks[0].final, "top1")
    assert got.matrix.tolist() == [[3, 3, 0], [1, 3, 0], [1, 0, 1]]
    assert [(c.name, c.correct, c.total) for c in got.classes] == [("cat", 3, 6), ("owl", 1, 2), ("dog", 3, 4)]
    assert [(p.label, p.predicted, p.num) for p in got.pairs] == [
        ("cat", "dog", 3),
        ("dog", "cat", 1),
        ("owl", "cat", 1),
    ]
    assert got.notes == ()


@pytest.mark.parametrize(
    ("predicted", "num_examples", "said"),
    [
        ([0, 1, 0, 1], 4, "gives 50.00%, but result.json has 75.00%; not counted"),
        ([0, 0, 1, 5], 4, "does not fit 2 classes"),
        ([0, 0, 1, 0], 9, "has 4 examples, result.json 9; not counted"),
    ],
)
def test_predictions_that_contradict_the_result_are_not_counted(tmp_path, predicted, num_examples, said):
    sweep_in(tmp_path)
    folder = write_run(tmp_path, result("cifar10", 0.75, num_examples=num_examples))
    write_predictions(folder, [0, 0, 1, 1], predicted)
    (entry,) = collect([tmp_path])
    got = outcomes(entry.tasks[0].final, "top1")
    assert got.matrix is None
    assert said in got.notes[0]


def test_missing_and_damaged_predictions_and_mistakes_are_notes_on_the_page(tmp_path):
    sweep_in(tmp_path)
    write_run(tmp_path, result("cifar10", 0.5, seed=0))
    damaged = write_run(tmp_path, result("cifar10", 0.5, seed=1))
    (damaged / "predictions.npz").write_bytes(b"PK\x03\x04 torn")
    outside = write_run(tmp_path, result("cifar10", 0.5, seed=2))
    write_mistakes(outside)
    listed = json.loads((outside / "mistakes" / "mistakes.json").read_text())
    (outside / "mistakes" / "mistakes.json").write_text(json.dumps([listed[0] | {"file": "../../secret.png"}]))
    for lr, text in (
        (0.001, DEEP),
        (0.003, "3"),
        (0.01, '[{"file": "00.png", "label": 0, "predicted": 1, "confidence": []}]'),
    ):
        dev = write_run(tmp_path, result("digits", 0.5, phase="dev", lr=lr))
        write_mistakes(dev)
        (dev / "mistakes" / "mistakes.json").write_text(text)
        (entry,) = collect([tmp_path])
        assert "mistakes.json cannot be read" in outcomes([entry.tasks[2].dev[-1]], "top1").notes[-1]
    write_report([tmp_path], tmp_path / "page")
    page = (tmp_path / "page" / "index.html").read_text()
    assert "seed 0: no predictions.npz, so no accuracy by class" in page
    assert "seed 1: predictions.npz cannot be read" in page
    assert "seed 2: mistakes.json cannot be read" in page
    assert "secret.png" not in page
