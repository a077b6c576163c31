"""A run made longer: what counts as longer, which schedule asks for --extend, and what is recorded."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from etils import epath

from vit_jax import config as configs
from vit_jax.resolve import resolve
from vit_jax.run.extend import find_extension, rates, record_extension
from vit_jax.run.schema import SCHEMA
from vit_jax.types import UserError

LINEAR = {"optim.decay": "linear", "optim.lr": "0.1", "optim.end_lr": "0", "optim.warmup": "10"}


def job_of(steps, **changes):
    """A checked run of so many steps, 10 of them an epoch."""
    overrides = LINEAR | {"train.duration": str(steps)} | {k.replace("__", "."): v for k, v in changes.items()}
    config = resolve(configs.load("configs/quickstart.py:pretrain,smoke"), SCHEMA, list(overrides.items()))
    return SimpleNamespace(config=config, total_steps=steps, steps_per_epoch=10.0)


@pytest.fixture
def folder(tmp_path):
    """The workdir of a run that has saved step 60."""
    (tmp_path / "checkpoints" / "60").mkdir(parents=True)
    return epath.Path(tmp_path)


def find(folder, old, new, *, asked=False, free=()):
    return find_extension(new, folder, configs.to_dict(old.config), free, asked=asked)


def test_a_schedule_that_changes_has_to_be_asked_for_and_the_first_step_that_differs_is_named(folder):
    # Step 12 is the second after a warm-up of 10: 0.1 (1 - 1/100) of 110 steps, 0.1 (1 - 1/200) of 210.
    with pytest.raises(
        UserError, match=r"is 110 steps in .* and 210 now: .*\(step 12: 0\.099 -> 0\.0995\), so .*"
    ) as told:
        find(folder, job_of(110), job_of(210))
    assert "--extend continues from step 60 on the longer schedule" in str(told.value)
    found = find(folder, job_of(110), job_of(210), asked=True)
    assert (found.step, found.old_steps, found.new_steps, found.rates_changed) == (60, 110, 210, True)
    # The next step is 50 after the warm-up: half of the old decay's 100, a quarter of the new one's 200.
    assert (found.old_rate, found.new_rate) == (pytest.approx(0.05), pytest.approx(0.075))
    assert str(found).startswith("extended at step 60 from 110 to 210 steps; the schedule is the longer one from here")
    assert "(next learning rate 0.05 -> 0.075)" in str(found)


def test_a_constant_rate_after_a_warm_up_in_steps_is_extended_without_asking(folder):
    found = find(folder, job_of(60, optim__decay="constant"), job_of(90, optim__decay="constant"))
    assert (found.rates_changed, found.old_rate, found.new_rate) == (False, pytest.approx(0.1), pytest.approx(0.1))
    assert str(found).endswith("; the learning rates of the steps done are those of the longer run")
    share = {"optim__decay": "constant", "optim__warmup": "50%"}  # of 60 steps 30, of 90 steps 45
    with pytest.raises(UserError, match=r"step 2: 0\.00333 -> 0\.00222"):  # 0.1 / 30 and 0.1 / 45
        find(folder, job_of(60, **share), job_of(90, **share))


def test_a_run_with_another_key_a_shorter_one_and_one_that_saved_nothing_are_no_extensions(folder, tmp_path):
    long = job_of(210)
    assert find(folder, job_of(110), job_of(110)) is None
    assert find(folder, long, job_of(110)) is None
    assert find(folder, job_of(110, optim__lr="0.2"), long, asked=True) is None
    assert find(epath.Path(tmp_path / "new"), job_of(110), long) is None
    assert find_extension(long, folder, None, asked=False) is None
    constant = {"optim__decay": "constant"}
    moved = job_of(90, data__workers="2", data__threads="3", **constant)  # where the work is done may change too
    assert find(folder, job_of(60, **constant), moved).new_steps == 90
    other_device = job_of(90, model__dtype="bfloat16", **constant)
    assert find(folder, job_of(60, **constant), other_device) is None
    assert find(folder, job_of(60, **constant), other_device, free={"model.dtype"}).new_steps == 90


def test_the_rates_of_a_run_are_those_of_its_schedule(folder):
    by_hand = [0.1 * step / 10 for step in range(10)] + [0.1 * (1 - (step - 10) / 40) for step in range(10, 50)]
    np.testing.assert_allclose(rates(job_of(50), 50, 50), by_hand, rtol=1e-5, atol=1e-9)
    assert rates(job_of(50, optim__decay="constant", optim__warmup="0"), 50, 3).tolist() == [np.float32(0.1)] * 3


def test_each_extension_is_an_entry_and_the_longer_config_is_the_run_s(folder):
    first, second = (find(folder, job_of(110), job_of(steps), asked=True) for steps in (210, 310))
    for found, steps in ((first, 210), (second, 310)):
        record_extension(folder, found, configs.to_dict(job_of(steps).config))
    entries = json.loads((folder / "extensions.json").read_text())
    assert [(entry["old_steps"], entry["new_steps"], entry["new_duration"]) for entry in entries] == [
        (110, 210, "210"),
        (110, 310, "310"),
    ]
    assert json.loads((folder / "config.json").read_text())["train"]["duration"] == "310"
    (folder / "extensions.json").write_text("[{")
    with pytest.raises(UserError, match=r"extensions\.json .*; remove it; it is a record alone"):
        record_extension(folder, first, {})
