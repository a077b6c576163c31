"""A run before it starts: its lengths, what it refuses, and the same parts without any data."""

import pytest

from vit_jax import config as configs
from vit_jax.models.build import count_params
from vit_jax.run import job
from vit_jax.run.job import MissingData, fill_saved, saved_config, stand_in, stand_in_settled
from vit_jax.run.record import write_json
from vit_jax.run.settle import Facts
from vit_jax.types import UserError


def draft():
    return configs.load("configs/quickstart.py:pretrain,smoke")


def test_lengths_follow_the_data_and_durations_are_read_in_every_unit(made):
    job = made(train__duration="3 epochs")
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
        (
            {"train__patience": "2", "checkpoint__best_metric": "eval/digits/top1"},
            r"train.patience=2 waits for a better checkpoint.best_metric and keeps that checkpoint: .* checkpoint.keep_best=1",
        ),
        (
            {"objective__name": "regression"},
            r"config.objective.name=regression reads numbers, and digits has a class for each image; choose other data",
        ),
        ({"init": "no/such.npz"}, r"no/such.npz"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_computed(made, overrides, message):
    with pytest.raises(UserError, match=message):
        made(**overrides)


def test_all_data_that_is_missing_is_reported_at_once(made):
    with pytest.raises(MissingData) as told:
        made(data__dataset="here/nowhere", evals__digits__dataset="there/nowhere")
    assert all(place in str(told.value) for place in ("here/nowhere", "there/nowhere"))


def test_parts_without_data_are_those_of_the_run(made):
    job = made()
    config, parts = stand_in(draft(), [("data.batch_size", "72"), ("model.depth", "1")], num_classes=10)
    assert config.model == job.config.model
    assert count_params(parts.abstract.params) == count_params(job.parts.abstract.params)


@pytest.mark.slow
def test_on_an_accelerator_the_parts_are_those_that_memory_asks_for(monkeypatch):
    def stand_in_with(memory):
        facts = Facts("tpu", devices=8, splits=[1, 2, 4, 8], memory=memory)
        monkeypatch.setattr(job, "device_facts", lambda *_: facts)
        options = [("data.batch_size", "72"), ("model.depth", "2"), ("model.scan", "auto"), ("model.dtype", "auto")]
        return stand_in_settled(draft(), options, num_classes=10)

    config, parts, _ = stand_in_with(10**9)
    assert (config.model.scan, config.model.remat, config.train.accumulation, config.train.fsdp) == (
        False,
        "none",
        1,
        1,
    )
    assert "encoderblock_1" in parts.abstract.params["Transformer"]
    config, parts, decisions = stand_in_with(parts.state_bytes)  # a quarter of which is allowed to the state
    assert (config.model.scan, config.model.remat, config.train.fsdp) == (True, "block", 4)
    assert parts.mesh.shape["fsdp"] == 4
    assert "encoderblock" in parts.abstract.params["Transformer"]
    assert {"model.dtype", "model.scan", "model.remat", "train.fsdp"} <= {decision.key for decision in decisions}
    parts.trace(72, config.data.resolution)


def test_a_saved_config_is_itself_again_and_gets_keys_that_are_newer(made, tmp_path):
    saved = configs.to_dict(made().config)
    assert fill_saved(saved) == saved
    older = {name: dict(section) if isinstance(section, dict) else section for name, section in saved.items()}
    del older["data"]["exif"], older["model"]["qk_norm"]
    assert fill_saved(older) == saved
    del older["model"]["attention"]
    assert fill_saved(older) == saved | {"model": saved["model"] | {"attention": "xla"}}  # all that older runs had
    older["optim"]["lr"] = "fast"  # is told as a difference, and not as a mistake of today's config
    assert fill_saved(older)["optim"]["lr"] == "fast"
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    write_json(tmp_path / "config.json", saved)
    assert saved_config(tmp_path) == saved


class Gpu:
    """What is asked of a device."""

    platform, process_index, slice_index = "gpu", 0, 0

    def __init__(self, capability):
        self.compute_capability = capability


@pytest.mark.parametrize(("capability", "number"), [("9.0", 9.0), ("gfx942", 0.0)])  # NVIDIA's and AMD's
def test_gpus_that_are_not_here_have_their_compute_capability(capability, number):
    facts = job.device_facts([Gpu(capability)] * 2, 80 * 10**9)
    assert (facts.backend, facts.capability, facts.devices, facts.memory) == ("gpu", number, 2, 80 * 10**9)
