"""A run's work besides training: evaluators when they are due, and the description of each checkpoint."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
from etils import epath

from vit_jax.evals.base import Scores
from vit_jax.run.hooks import RunHooks
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
