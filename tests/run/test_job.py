"""A run before it starts: its lengths, what it refuses, and the same parts without any data."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from etils import epath

from vit_jax import config as configs
from vit_jax.data.prepare.prepare import prepare as prepare_data
from vit_jax.evals.base import Scores
from vit_jax.models.build import count_params
from vit_jax.run.hooks import RunHooks
from vit_jax.run.job import MissingData, build_job, complete_saved, saved_config, stand_in
from vit_jax.run.record import write_json
from vit_jax.types import TrainState, UserError


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    prepare_data("digits", data_dir=str(folder))
    return str(folder)


def draft():
    return configs.load("configs/quickstart.py:pretrain,smoke")


def made(digits, **overrides):
    pairs = {"data.data_dir": digits, "data.split": "train[:720]", "data.batch_size": "72", "model.depth": "1"}
    pairs |= {key.replace("__", "."): value for key, value in overrides.items()}
    return build_job(draft(), list(pairs.items()))


def test_lengths_follow_the_data_and_durations_are_read_in_every_unit(digits):
    job = made(digits, train__duration="3 epochs")
    assert (job.steps_per_epoch, job.total_steps, job.batch_size) == (10.0, 30, 72)
    assert [job.to_steps(text) for text in ("2 epochs", "10%", 7, "7 steps")] == [20, 3, 7, 7]
    assert job.specs[0].num_examples == 720
    assert job.config.model.num_classes == 10
    assert ("model.num_classes", 10, "digits has as many") in job.settled


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train__duration": "0.01 epochs"}, r"train.duration is '0.01 epochs': 0 steps; make it at least one"),
        ({"model__num_classes": "4"}, r"config.model.num_classes is 4, but digits has 10 classes; leave it out"),
        ({"data__batch_size": "71"}, r"data.batch_size=71 is not divisible by 8 devices"),
        ({"evals__digits__batch_size": "60"}, r"config.evals.digits: batch_size=60 is not divisible by 8 devices"),
        (
            {"checkpoint__best_metric": "eval/tset/top1"},
            r"best_metric is 'eval/tset/top1'; expected one of eval/digits/",
        ),
        ({"init": "no/such.npz"}, r"no/such.npz"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_computed(digits, overrides, message):
    with pytest.raises(UserError, match=message):
        made(digits, **overrides)


def test_all_data_that_is_missing_is_reported_at_once(digits):
    with pytest.raises(MissingData) as told:
        made(digits, data__dataset="here/nowhere", evals__digits__dataset="there/nowhere")
    assert all(place in str(told.value) for place in ("here/nowhere", "there/nowhere"))


def test_parts_without_data_are_those_of_the_run(digits):
    job = made(digits)
    config, parts = stand_in(draft(), [("data.batch_size", "72"), ("model.depth", "1")], num_classes=10)
    assert config.model == job.config.model
    assert count_params(parts.abstract.params) == count_params(job.parts.abstract.params)


def test_a_saved_config_is_itself_again_and_gets_keys_that_are_newer(digits, tmp_path):
    saved = configs.to_dict(made(digits).config)
    assert complete_saved(saved) == saved
    older = {name: dict(section) if isinstance(section, dict) else section for name, section in saved.items()}
    del older["data"]["exif"], older["model"]["qk_norm"]
    assert complete_saved(older) == saved
    del older["model"]["attention"]
    assert complete_saved(older) == saved | {"model": saved["model"] | {"attention": "xla"}}  # all that older runs had
    older["optim"]["lr"] = "fast"  # is told as a difference, and not as a mistake of today's config
    assert complete_saved(older)["optim"]["lr"] == "fast"
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    write_json(tmp_path / "config.json", saved)
    assert saved_config(tmp_path) == saved


def test_evaluators_run_when_they_are_due_and_at_the_end(digits, tmp_path):
    job = made(digits, train__duration="9", evals__digits__every="4", evals__fewshot__every="100%")
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
