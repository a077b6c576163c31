"""The training loop: draw a batch, step, write metrics, evaluate, save, stop on a signal."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import signal
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import jax
from jax.sharding import Mesh

from vit_jax import partition, peers
from vit_jax.metrics.trackers import check_trackers
from vit_jax.metrics.writers import MetricWriters
from vit_jax.process import Heed, acknowledged
from vit_jax.train.checkpoint import Checkpointer, items_of
from vit_jax.train.checksum import examine
from vit_jax.train.clock import Clock
from vit_jax.train.step import TrainStep
from vit_jax.types import Batch, Duration, TrainState, UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The `train` section.

    Args:
      duration: length of the run.
      log_every: how often training metrics are written; they are means over the steps since the last record.
      accumulation: micro-batches per step (the global batch is unchanged: 4096 = 8 devices x 128 x 4); None for as few as the
        devices' memory asks for.
      average_decay: factor of the Polyak average per step, 0.9999 in table 2; 0 keeps none.
      mixup: alpha of mixup's Beta distribution, 0.2 to 0.8 in AugReg; 0 for none.
      cutmix: alpha of CutMix's Beta distribution; with mixup too, each step uses one of the two.
      patience: evaluations without a better checkpoint.best_metric after which the run ends early; 0 for never. The schedule
        stays that of the whole duration.
      trackers: `wandb` and `mlflow` get the run's numbers and pictures too; see `metrics.trackers`.
      fsdp: devices over which parameters and optimizer state are split; None lets the run decide from the devices' memory.
    """

    duration: Duration
    log_every: Duration = 50
    accumulation: int | None = None
    average_decay: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    patience: int = 0
    fsdp: int | None = None
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_trackers(self.trackers)
        if self.accumulation is not None and self.accumulation < 1:
            raise UserError(f"train.accumulation is {self.accumulation}; expected 1 or more")
        if self.patience < 0:
            raise UserError(f"train.patience is {self.patience}; expected evaluations, or 0 for no early stop")
        if not 0 <= self.average_decay < 1:
            raise UserError(f"train.average_decay is {self.average_decay}; expected at least 0 and below 1")


class NonFinite(UserError):  # noqa: N818  (reads better without Error)
    """A loss, a gradient or the state is NaN or infinite."""


class Interrupted(Exception):  # noqa: N818  (not an error: the run is saved and can resume)
    """The run was asked to stop (SIGTERM, SIGINT), finished its step and saved."""


class StopSignal:
    """Turns SIGTERM and SIGINT into a flag that the loop reads after each step; a second SIGINT goes to the previous handler.

    In a run of several processes every process must stop at the same step: JAX's preemption service agrees on one. The service
    listens to SIGTERM, so SIGINT is passed on as SIGTERM.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._alone = jax.process_count() == 1
        self._heed = Heed(self._receive, (signal.SIGTERM, signal.SIGINT) if self._alone else (signal.SIGINT,))
        self._together = contextlib.nullcontext() if self._alone else peers.stopping_together()
        self._acknowledge = acknowledged(
            "stopping: the step ends and the run is saved; a second Ctrl-C ends it at once"
        )

    def __enter__(self) -> StopSignal:
        self._acknowledge.__enter__()
        self._together.__enter__()
        self._heed.take()
        return self

    def __exit__(self, *error: Any) -> None:
        self._heed.give_back()
        self._together.__exit__(*error)
        self._acknowledge.__exit__(*error)

    def _receive(self, number: int) -> None:
        self.received = number
        self._heed.give_back([signal.SIGINT])
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)

    def asked(self, step: int) -> bool:
        """Whether to stop after `step`."""
        return self.received is not None if self._alone else peers.reached_stop(step)


class Window:
    """Training metrics since they were last written: device scalars, fetched only when they are needed.

    Args:
      pending: {name: one float per step}, from the checkpoint being resumed.
    """

    def __init__(self, pending: dict[str, list[float]] | None = None):
        self._fetched = {name: list(values) for name, values in (pending or {}).items()}
        self._on_device: list[tuple[int, dict[str, jax.Array]]] = []
        self._in_flight: deque[jax.Array] = deque(maxlen=2)

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Adds a step's metrics, and waits for the step before the last: the host runs at most two steps ahead."""
        if len(self._in_flight) == 2:
            self._in_flight[0].block_until_ready()
        self._in_flight.append(metrics["loss"])
        self._on_device.append((step, metrics))

    def pending(self) -> dict[str, list[float]]:
        """Fetches metrics that are still on the device (a sync point) and checks them.

        Raises:
          NonFinite: a loss or gradient is not finite; the message names the first such step.
        """
        for step, metrics in self._on_device:
            values = {name: float(value) for name, value in metrics.items()}
            for name in ("loss", "grad_norm"):
                if not math.isfinite(values[name]):
                    raise NonFinite(f"{name} is {values[name]} at step {step} (learning rate {values['lr']:.3g})")
            for name, value in values.items():
                self._fetched.setdefault(name, []).append(value)
        self._on_device = []
        # Copies: a checkpoint's meta is serialised in the background, while training adds steps.
        return {name: list(values) for name, values in self._fetched.items()}

    def flush(self) -> dict[str, float]:
        """Returns means over the steps since the last flush; the learning rate is the last step's."""
        values = self.pending()
        self._fetched = {}
        means = {f"train/{name}": math.fsum(v) / len(v) for name, v in values.items() if name != "lr"}
        return means | {"train/lr": values["lr"][-1]}


def examine_state(state: TrainState, mesh: Mesh) -> dict[str, list[int]]:
    """Checks every number of a state, on the devices (a sync point), and returns the checksums of each item of its checkpoint.
    A step's loss shows nothing about the parameters that the step wrote.

    Raises:
      NonFinite: a parameter, its average or the optimizer state is not finite.
    """
    checksums = {}
    for item, tree in items_of(state).items():
        finite, checksums[item] = examine(tree, mesh)
        if not all(finite):
            name = {"params": "parameters", "average": "averages", "opt_state": "optimizer state"}[item]
            raise NonFinite(f"the {name} are not finite after step {int(state.step)}")
    return checksums


@dataclasses.dataclass(frozen=True, kw_only=True)
class Length:
    """How long a run is, and the units of its log.

    Args:
      start_step, total_steps: optimizer steps.
      steps_per_epoch: used to log the epoch.
      batch_size: global, used to log images per second.
      log_every: steps between records of training metrics.
    """

    start_step: int
    total_steps: int
    steps_per_epoch: float
    batch_size: int
    log_every: int


@runtime_checkable
class Hooks(Protocol):
    """A run's work besides training."""

    @property
    def over(self) -> bool:
        """Whether the last evaluation ends the run early."""

    def evaluate(self, step: int, state: TrainState) -> dict[str, float]:
        """Results of the evaluators that are due at a step; {} if none is."""

    def describe(self, step: int) -> dict[str, Any]:
        """The meta of a checkpoint at a step."""


def announce_first(loss: jax.Array, began: float, writers: MetricWriters) -> None:
    """Waits for the first step (a sync point, once) and reports it, long before the first record."""
    loss.block_until_ready()
    writers.notice(f"first step done in {time.perf_counter() - began:.1f} s")


def fit(
    state: TrainState,
    *,
    train_step: TrainStep,
    batches: Iterator[Batch],
    mesh: Mesh,
    length: Length,
    hooks: Hooks,
    window: Window,
    clock: Clock,
    checkpointer: Checkpointer,
    writers: MetricWriters,
) -> TrainState:
    """Trains from `length.start_step` to `length.total_steps`.

    Args:
      state: the state at the start step; its memory is reused.
      train_step: the jitted step.
      batches: this process's share of each global batch, from the start step on.
      mesh: the mesh.
      length: the run's first and last step, and the units of its log.
      hooks: evaluation, and the description of a checkpoint.
      window: training metrics that were still unwritten in the checkpoint being resumed.
      clock: adds up what the time was spent on.
      checkpointer: where and when to save.
      writers: the destinations of metrics.

    Returns:
      The final state, which has been saved.

    Raises:
      Interrupted: after saving, on SIGTERM or SIGINT.
      NonFinite: the loss, a gradient or the state is not finite.
      UserError: a save failed, or too many images are corrupt.
    """
    saved_step, total_steps = length.start_step, length.total_steps

    def save(step: int, scores: dict[str, float]) -> int:
        with clock.spend("step"):  # of the steps that are still under way
            writers.flush()
            values = window.pending()
        with clock.spend("saving"):
            checksums = examine_state(state, mesh)
            checkpointer.save(state, {**hooks.describe(step), "pending": values, "checksums": checksums}, scores)
        clock.saved()
        return step

    with StopSignal() as stop:
        for step in range(length.start_step + 1, total_steps + 1):
            began = time.perf_counter()
            try:
                batch = partition.put_batch(next(batches), mesh)
            except UserError:  # save: once files are repaired or the limit is raised, no step is repeated
                if saved_step < step - 1 and jax.process_count() == 1:
                    save(step - 1, {})
                raise
            drawn = time.perf_counter()
            state, metrics = train_step(state, batch)
            window.add(step, metrics)
            if step == length.start_step + 1:
                announce_first(metrics["loss"], began, writers)
            scalars = window.flush() if step % length.log_every == 0 or step == total_steps else None
            clock.step(drawn - began, time.perf_counter() - drawn)
            if scalars:
                epoch = {"train/epoch": step / length.steps_per_epoch}
                writers.write(step, scalars | epoch | clock.rates(length.batch_size, total_steps - step))
                if advice := clock.advice():
                    writers.notice(advice)
            with clock.spend("evaluation"):
                scores = hooks.evaluate(step, state)
            if scores:
                window.pending()  # raises first: scores of broken weights are not worth a record
                writers.write(step, scores)
            last, asked = step == total_steps or hooks.over, stop.asked(step)
            if last or asked or checkpointer.due(step) or checkpointer.is_best(scores):
                saved_step = save(step, scores)
            if last or asked:
                checkpointer.wait()
                if not last:
                    raise Interrupted(f"stopped after step {step} of {total_steps} and saved; the same command resumes")
                break
    return state
