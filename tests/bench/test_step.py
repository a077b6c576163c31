"""The timing of one step: batches of the config's shape, the sizes that are reported, and a state that moves on."""

import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import config as configs
from vit_jax.bench import step as bench
from vit_jax.bench.step import build_step, measure_step, random_batches
from vit_jax.models.build import count_params
from vit_jax.run import job
from vit_jax.run.job import stand_in
from vit_jax.run.settle import Facts
from vit_jax.targets import Boxes, ClassSet

SPEC = f"{Path(__file__).resolve().parents[2]}/configs/quickstart.py:pretrain,smoke"
# Four patches of 4x4 pixels, width 8, one block: every tensor by hand.
TINY = {"model.width": "8", "model.depth": "1", "model.mlp_dim": "16", "model.num_heads": "2", "model.num_classes": "5"}
TINY |= {"data.resolution": "(8, 8)", "model.representation_size": "0", "data.batch_size": "16"}
PATCH, BLOCK, HEAD = 48 * 8 + 8, 4 * (8 * 8 + 8) + (8 * 16 + 16) + (16 * 8 + 8) + 4 * 8, 8 * 5 + 5
PARAMS = PATCH + 5 * 8 + 8 + BLOCK + 2 * 8 + HEAD  # with positions of 5 tokens, the class token and the last norm


@pytest.fixture(scope="module")
def built():
    return stand_in(configs.load(SPEC), list(TINY.items()), num_classes=1000)


def test_batches_are_noise_of_the_configs_shape_with_labels_of_its_head(built):
    first, second = random_batches(built[0])
    for batch in (first, second):
        assert (batch.image.shape, batch.image.dtype) == ((16, 8, 8, 3), np.uint8)
        assert (batch.target.dtype, set(batch.target) <= set(range(5))) == (np.int32, True)
        assert batch.mask.tolist() == [1.0] * 16
    assert not np.array_equal(first.image, second.image)
    again, _ = random_batches(built[0])
    assert np.array_equal(first.image, again.image)


def test_batches_of_a_detector_have_objects_whose_boxes_lie_in_the_image(built):
    batch, _ = random_batches(built[0], Boxes(num_classes=3, most=9))
    assert batch.target.valid.sum(axis=1).tolist() == [7.0] * 16
    left, top, right, bottom = np.moveaxis(batch.target.box[:, :7], -1, 0)
    assert ((left >= 0) & (left < right) & (right <= 1) & (top >= 0) & (top < bottom) & (bottom <= 1)).all()
    assert set(batch.target.kind[:, :7].flat) == {0, 1, 2}
    several, _ = random_batches(built[0], ClassSet(4))
    assert several.target.shape == (16, 4)


def test_a_step_of_training_goes_on_from_the_state_of_the_last_with_the_other_batch(built):
    config, parts = built
    seen = []

    def program(state, batch):
        seen.append(int(batch.image.sum()))
        return state + 1, {"loss": state}

    stub = types.SimpleNamespace(
        model=parts.model,
        mesh=parts.mesh,
        compile=lambda batch_size, resolution: (program, (batch_size, *resolution)),
        draw_state=lambda params: count_params(params),
        target=None,
    )
    step, flops = build_step("train", config, stub)
    assert [step(i) for i in range(3)] == [PARAMS, PARAMS + 1, PARAMS + 2]
    assert flops == (16, 8, 8)
    first, second = (int(batch.image.sum(dtype=np.int64)) for batch in random_batches(config))
    assert first != second
    assert seen == [first, second, first]


@pytest.mark.slow
def test_a_forward_pass_costs_two_operations_for_each_product(built):
    step, flops = build_step("infer", *built)
    assert np.asarray(step(0)).tolist() == [[0.0] * 5] * 16  # of a head of zeros
    patches, block = 4 * 48 * 8, 5 * 4 * 8 * 8 + 2 * 5 * 5 * 8 + 5 * 2 * 8 * 16
    assert flops == 2 * (patches + block + 8 * 5)


def test_what_is_measured_is_described(monkeypatch):
    def step(i):
        time.sleep(0.002)  # seconds are rounded to microseconds
        return jnp.zeros(())

    monkeypatch.setattr(bench, "build_step", lambda *_: (step, 1000))
    found = measure_step("infer", SPEC, [*TINY.items()], batch_size=8, steps=4)
    assert (found["num_params"], found["remat"]) == (PARAMS, "none")
    assert (found["batch_size"], found["resolution"], found["timed_steps"]) == (8, [8, 8], 4)
    assert found["images_per_s"] == pytest.approx(8 / found["step_s_median"], rel=1e-2)
    assert (found["device"], found["num_devices"]) == (jax.devices()[0].device_kind, jax.device_count())
    assert found["overrides"] == TINY
    assert 0 < found["time_to_first_step_s"] <= found["process_start_to_first_step_s"]


@pytest.mark.parametrize(("by_hand", "accumulation"), [([], 1), ([("train.accumulation", "2")], 2)])
def test_memory_asks_for_no_micro_batches_in_a_benchmark(monkeypatch, by_hand, accumulation):
    """They would fit any batch, and the search for the largest would not end."""
    found = []

    def built_with(draft, overrides, **facts):
        config, parts = stand_in(draft, overrides, **facts)
        found.append(config.train.accumulation)
        return config, parts

    monkeypatch.setattr(bench, "stand_in", built_with)
    monkeypatch.setattr(bench, "build_step", lambda *_: (lambda i: jnp.zeros(()), 1000))
    tight = Facts("tpu", devices=8, splits=[1, 2, 4, 8], memory=10**4)
    monkeypatch.setattr(job, "device_facts", lambda *_: tight)
    measure_step("train", SPEC, [*TINY.items(), *by_hand], batch_size=32, steps=4)
    assert found == [accumulation]
