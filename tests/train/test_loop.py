"""The loop alone: what it records and when, what a resumed window adds, and what stops it."""

import math
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import partition
from vit_jax.metrics.writers import MetricWriters
from vit_jax.train import loop
from vit_jax.train.checkpoint import Checkpointer
from vit_jax.train.clock import Clock
from vit_jax.train.loop import Interrupted, Length, NonFinite, StopSignal, Window, fit
from vit_jax.types import Batch, TrainState, UserError


class Saver(Checkpointer):
    """A checkpointer that remembers, and has no folder."""

    def __init__(self, every=100):
        self.every, self.saved = every, []

    def due(self, step):
        return step % self.every == 0

    def is_best(self, scores):
        return False

    def save(self, state, meta, scores=None):
        self.saved.append((int(state.step), meta["pending"]))

    def wait(self):
        pass


class Record(MetricWriters):
    """Writers that remember."""

    def __init__(self):
        self.entries, self.notices = [], []

    def write(self, step, scalars):
        self.entries.append((step, {k: v for k, v in scalars.items() if not k.startswith("time/")}))

    def notice(self, text):
        self.notices.append(text)

    def flush(self):
        pass


class Beside:
    """Scores every third step."""

    over = False

    def evaluate(self, step, state):
        return {"eval/a/top1": step / 10} if step % 3 == 0 else {}

    def describe(self, step):
        return {"step": step}


@pytest.fixture(autouse=True)
def no_checksums(monkeypatch):
    monkeypatch.setattr(loop, "examine_state", lambda state, mesh: {})


def train(
    *,
    start=0,
    total=7,
    log_every=3,
    every=100,
    window=None,
    step=None,
    batches=None,
    hooks=None,
    clock=None,
    patience=None,
):
    mesh = partition.make_mesh(1)

    def plain(state, batch):
        loss = jnp.float32(state.step + 1)
        return state._replace(step=state.step + 1), {"loss": loss, "grad_norm": loss, "lr": jnp.float32(0.5)}

    def endless():
        while True:
            yield Batch(np.zeros((8, 2, 2, 3), np.uint8), np.zeros(8, np.int32), np.ones(8, np.float32))

    state = TrainState(jnp.int32(start), {}, (), None, jax.random.key(0))
    saver, record = Saver(every), Record()
    length = Length(start_step=start, total_steps=total, steps_per_epoch=2.0, batch_size=8, log_every=log_every)
    try:
        fit(
            state,
            train_step=step or plain,
            batches=batches or endless(),
            mesh=mesh,
            length=length,
            hooks=hooks or Beside(),
            window=window or Window(),
            clock=clock or Clock(),
            checkpointer=saver,
            writers=record,
        )
    except (Interrupted, UserError) as error:
        return saver, record, error
    return saver, record, None


def test_metrics_are_means_since_the_last_record_and_the_last_step_has_one():
    saver, record, _ = train()
    trained = [(step, e["train/loss"], e["train/epoch"]) for step, e in record.entries if "train/loss" in e]
    assert trained == [(3, 2.0, 1.5), (6, 5.0, 3.0), (7, 7.0, 3.5)]  # the losses are 1, 2, 3, ...
    assert [(step, e) for step, e in record.entries if "eval/a/top1" in e] == [
        (3, {"eval/a/top1": 0.3}),
        (6, {"eval/a/top1": 0.6}),
    ]
    assert saver.saved == [(7, {})]


def test_a_checkpoint_between_two_records_carries_what_is_not_written_yet():
    saver, _, _ = train(every=4)
    (step, pending), _ = saver.saved
    assert (step, pending["loss"]) == (4, [4.0])
    _, record, _ = train(start=4, window=Window(pending))
    assert [(step, e["train/loss"]) for step, e in record.entries if "train/loss" in e] == [(6, 5.0), (7, 7.0)]


def test_a_signal_ends_the_run_after_its_step_saved():
    class Stopping(Beside):
        def evaluate(self, step, state):
            if step == 2:
                signal.raise_signal(signal.SIGTERM)
            return {}

    before = signal.getsignal(signal.SIGTERM)
    saver, _, error = train(hooks=Stopping())
    assert isinstance(error, Interrupted)
    assert "stopped after step 2 of 7 and saved" in str(error)
    assert [step for step, _ in saver.saved] == [2]
    assert signal.getsignal(signal.SIGTERM) == before
    with StopSignal() as stop:
        assert not stop.asked(1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_named_with_its_step_and_never_saved(bad):
    def step(state, batch):
        loss = jnp.where(state.step == 1, bad, 1.0)
        return state._replace(step=state.step + 1), {"loss": loss, "grad_norm": loss * 0 + 1, "lr": jnp.float32(0.5)}

    saver, record, error = train(step=step, every=3)
    assert isinstance(error, NonFinite)
    assert f"loss is {bad} at step 2 (learning rate 0.5)" in str(error)
    assert (saver.saved, record.entries) == ([], [])


def test_when_the_data_ends_the_run_the_steps_before_it_are_saved():
    def two():
        for _ in range(2):
            yield Batch(np.zeros((8, 2, 2, 3), np.uint8), np.zeros(8, np.int32), np.ones(8, np.float32))
        raise UserError("too many corrupt images")

    saver, _, error = train(batches=two())
    assert "too many corrupt images" in str(error)
    assert [step for step, _ in saver.saved] == [2]


def test_a_starved_device_is_reported_once():
    batch = Batch(np.zeros((8, 2, 2, 3), np.uint8), np.zeros(8, np.int32), np.ones(8, np.float32))

    def slow():
        while True:
            time.sleep(0.004)
            yield batch

    clock = Clock()
    _, record, _ = train(total=60, log_every=10, batches=slow(), clock=clock)
    assert len([text for text in record.notices if "waits for data" in text]) == 1
    assert clock.totals()["data"] >= 60 * 0.004


def test_a_run_that_its_hooks_end_early_is_saved_at_that_step():
    class Ending(Beside):
        scored = 0

        @property
        def over(self):
            return self.scored >= 2

        def evaluate(self, step, state):
            scores = super().evaluate(step, state)
            self.scored += bool(scores)
            return scores

    saver, record, error = train(total=20, log_every=4, hooks=Ending())
    assert error is None
    assert [(step, pending["loss"]) for step, pending in saver.saved] == [
        (6, [5.0, 6.0])
    ]  # unwritten: a longer run writes them
    assert record.entries[-1] == (6, {"eval/a/top1": 0.6})
