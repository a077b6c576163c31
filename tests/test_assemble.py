"""Building the parts of a run: what is refused before anything is allocated, compiled or opened."""

import functools

import jax.numpy as jnp
import pytest

from vit_jax import config as configs
from vit_jax.assemble import build_parts, resolve
from vit_jax.train.objectives import OBJECTIVES, Objective
from vit_jax.types import UserError


def parts_of(overrides):
    config = configs.load("configs/quickstart.py:pretrain,smoke")
    config.objective.name = "own"
    resolve(config, [("model.num_classes", "10"), ("model.depth", "1"), *overrides])
    return build_parts(config, 20, functools.partial(configs.steps, steps_per_epoch=5, total=20))


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
