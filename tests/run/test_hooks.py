"""A run's work besides training: evaluators when they are due, and the description of each checkpoint."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
from etils import epath

from vit_jax.evals.base import Scores
from vit_jax.run.hooks import RunHooks
from vit_jax.train.patience import Patience
from vit_jax.types import TrainState


def test_evaluators_run_when_they_are_due_and_at_the_end(made, tmp_path):
    job = made(train__duration="9", evals__digits__every="4", evals__fewshot__every="100%")
    calls = []

    def scorer(name):
        def score(params):
            calls.append((name, params))
            return Scores({"top1": params / 10}, {"index": np.arange(params)})

        return score

    job = dataclasses.replace(job, scorers={name: scorer(name) for name in job.scorers})
    hooks = RunHooks(job, epath.Path(tmp_path), SimpleNamespace(corrupt=["b.png", "a.png"]))
    state = TrainState(0, 3, None, 5, None)
    assert hooks.evaluate(3, state) == {}
    assert hooks.evaluate(4, state) == {"eval/digits/top1": 0.3, "eval_average/digits/top1": 0.5}
    assert not (tmp_path / "predictions").exists()
    assert len(hooks.evaluate(9, state._replace(average=None))) == 2
    assert calls == [("digits", 3), ("digits", 5), ("digits", 3), ("fewshot", 3)]
    with np.load(tmp_path / "predictions" / "digits.npz") as stored:
        assert stored["index"].tolist() == [0, 1, 2]
    meta = hooks.describe(4)
    assert meta["data"] == {"next_example": 288, "corrupt": ["a.png", "b.png"]}
    assert (meta["grid"], meta["class_names"][:2]) == ([4, 4], ["0", "1"])


def test_only_the_first_process_writes_predictions(made, tmp_path, monkeypatch):
    job = made(train__duration="9")
    job = dataclasses.replace(
        job, scorers=dict.fromkeys(job.scorers, lambda params: Scores({"top1": 0.5}, {"index": [0]}))
    )
    hooks = RunHooks(job, epath.Path(tmp_path), SimpleNamespace(corrupt=()))
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert hooks.evaluate(9, TrainState(0, 3, None, None, None)) == {"eval/digits/top1": 0.5, "eval/fewshot/top1": 0.5}
    assert not (tmp_path / "predictions").exists()
    monkeypatch.setattr(jax, "process_index", lambda: 0)
    hooks.evaluate(9, TrainState(0, 3, None, None, None))
    assert sorted(file.name for file in (tmp_path / "predictions").iterdir()) == ["digits.npz", "fewshot.npz"]


def test_when_patience_ends_everything_is_scored_and_the_count_is_part_of_the_checkpoint(made, tmp_path):
    job = made(train__duration="20", evals__digits__every="2", evals__fewshot__every="100%")
    scorers = {"digits": lambda params: Scores({"top1": 0.5}), "fewshot": lambda params: Scores({"5shot": 0.25})}
    patience = Patience("eval/digits/top1", 2)
    hooks = RunHooks(
        dataclasses.replace(job, scorers=scorers), epath.Path(tmp_path), SimpleNamespace(corrupt=()), patience
    )
    state = TrainState(0, 3, None, None, None)
    found = []
    for step in range(1, 7):
        found.append(hooks.evaluate(step, state))
        if hooks.over:
            break
    # Best at step 2; steps 4 and 6 are no better.
    digits = {"eval/digits/top1": 0.5}
    assert found == [{}, digits, {}, digits, {}, {**digits, "eval/fewshot/5shot": 0.25}]
    assert hooks.describe(6)["patience"] == {"best": 0.5, "stale": 2}
    assert "patience" not in RunHooks(job, epath.Path(tmp_path), SimpleNamespace(corrupt=())).describe(6)
