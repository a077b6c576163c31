"""Building the parts of a run, and the mistakes that are refused before anything is allocated or compiled."""

import functools

import jax.numpy as jnp
import pytest

from vit_jax import config as configs
from vit_jax.evals.base import Scores
from vit_jax.models.build import count_params
from vit_jax.resolve import resolve
from vit_jax.run.assemble import bind_evaluators, build_parts
from vit_jax.run.job import stand_in
from vit_jax.run.schema import SCHEMA
from vit_jax.run.settle import Facts, settle
from vit_jax.train.objectives import OBJECTIVES, Objective
from vit_jax.types import UserError


def config_and_parts(overrides):
    config = configs.load("configs/quickstart.py:pretrain,smoke")
    config.objective.name = "own"
    config = resolve(config, SCHEMA, [("model.num_classes", "10"), ("model.depth", "1"), *overrides])
    config, _ = settle(config, Facts("cpu"))
    return config, build_parts(config, 20, functools.partial(configs.steps, steps_per_epoch=5, total=20))


def parts_of(overrides):
    return config_and_parts(overrides)[1]


@pytest.mark.slow
def test_a_run_on_devices_with_little_memory_splits_its_state():
    def parts_with(memory):
        spec = configs.load("configs/quickstart.py:pretrain,smoke")
        config, parts = stand_in(spec, [], num_classes=10, memory=memory)
        assert parts.mesh.shape["fsdp"] == config.train.fsdp
        return parts

    whole = parts_with(None)
    # Parameters, two moments, average and gradients: five times 4 bytes.
    state = 20 * count_params(whole.abstract.params)
    assert whole.state_bytes == pytest.approx(state, abs=100)
    found = [parts.mesh.shape["fsdp"] for parts in map(parts_with, (4 * state + 400, 4 * state - 400, state + 400))]
    assert [whole.mesh.shape["fsdp"], *found] == [1, 1, 2, 4]


def own(**facts):
    return lambda: Objective(lambda outputs, batch: {"loss": jnp.square(batch.target)}, **facts)


@pytest.mark.parametrize("key", ["mixup", "cutmix"])
def test_mixing_is_refused_for_a_loss_that_is_not_linear_in_the_target(monkeypatch, key):
    monkeypatch.setitem(OBJECTIVES, "own", own())
    with pytest.raises(UserError, match=r"train.mixup and train.cutmix mix targets.*objective.name=own is not linear"):
        parts_of([(f"train.{key}", "0.5")])
    parts_of([])
    monkeypatch.setitem(OBJECTIVES, "own", own(linear=True))
    parts_of([(f"train.{key}", "0.5")])


def test_an_objective_that_reads_what_the_model_does_not_return_is_refused_by_name(monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "own", own(reads=frozenset({"tokens", "mask", "attention"})))
    message = (
        r"objective.name=own reads attention and mask of the model's outputs, and config.model.name=vit as configured returns "
        r"logits, pooled, pre_logits, tokens; choose"
    )
    with pytest.raises(UserError, match=message):
        parts_of([])


class Bare:
    """An evaluator with what every evaluator has, and neither a batch size nor a recipe."""

    every = "100%"

    def open(self):
        return []

    def bind(self, model):
        if model.num_classes != 10:
            raise UserError("ten classes, please")
        return lambda params: Scores({"answer": params + model.num_classes})


def test_an_evaluator_needs_no_more_than_every_open_and_bind(monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "own", own())
    config, parts = config_and_parts([])
    assert bind_evaluators(config, parts, {"bare": Bare()})["bare"](32).values == {"answer": 42}
    config, parts = config_and_parts([("model.num_classes", "11")])
    with pytest.raises(UserError, match=r"^config\.evals\.bare: ten classes, please$"):
        bind_evaluators(config, parts, {"bare": Bare()})


@pytest.mark.parametrize(
    ("task", "override", "message"),
    [
        ("simmim", ("objective.ratio", "1.0"), r"objective.ratio is 1.0; expected above 0 and below 1"),
        ("simmim", ("objective.mask_patch", "24"), r"mask_patch is 24x24 pixels, which the model's patch of 16x16"),
        ("mae", ("model.mask_ratio", "0.0"), r"model.mask_ratio is 0.0; expected above 0 and below 1"),
        ("patches,target=patch_4x4,variant=B/14", ("seed", "1"), r"4 does not divide 14x14 pixels"),
        ("patches", ("objective.target", "pixels"), r"objective.name=patches reads pixels of .* returns mean_colour"),
        *[
            (task, ("train.mixup", "0.5"), rf"the loss of config.objective.name={task} is not linear in its target")
            for task in ("simmim", "mae", "patches")
        ],
    ],
)
def test_masked_pre_training_that_cannot_be_is_one_clear_error(task, override, message):
    spec = configs.load(f"configs/masked.py:objective={task},smoke")
    with pytest.raises(UserError, match=message):
        stand_in(spec, [override], num_classes=10)


def test_a_masked_model_has_no_head_whatever_the_data():
    spec = configs.load("configs/masked.py:objective=simmim,smoke")
    config, parts = stand_in(spec, [], num_classes=10)
    assert config.model.num_classes == 0
    assert "head" not in parts.abstract.params
