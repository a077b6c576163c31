"""Trackers of experiments as writers of a run's numbers: Weights & Biases and MLflow, chosen by name in `train.trackers`.

Each is configured by its own environment variables (WANDB_PROJECT, WANDB_MODE, MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, ...).
trackers.json in the workdir keeps the ids of the tracked runs, so that a resumed run continues them. A tracker that fails while a
run trains costs no training: its numbers are missing there, and metrics.jsonl has them all.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vit_jax.files import read_json
from vit_jax.metrics.writers import Writer
from vit_jax.types import UserError, nearest, printable

IDS = "trackers.json"
PAUSE_S = 300.0  # after a failure, before the tracker is tried again
MOST_PARAMS = 100  # of a request to an MLflow server


class WandbWriter(Writer):
    """A run of Weights & Biases; `identity` is that of trackers.json, "" for a new run."""

    def __init__(self, workdir: Path, config: Mapping[str, Any], identity: str):
        import wandb

        self.identity = identity or secrets.token_hex(4)
        # Killed without a network, a run loses what it wrote to no file yet, by default 15 s; older releases have no such key.
        quick = {key: 1.0 for key in ("x_transaction_log_flush_interval",) if key in wandb.Settings.model_fields}
        self._run = wandb.init(
            **{
                "id": self.identity,
                "resume": "allow",
                "name": workdir.name,
                "dir": str(workdir),
                "config": dict(config),
            },
            project=os.environ.get("WANDB_PROJECT", "vit_jax"),
            reinit="create_new",
            settings=wandb.Settings(console="off", **quick),
        )
        # Its own counter of steps refuses those that a resumed run repeats.
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        self._run.log({"step": step, **scalars})

    def picture(self, step: int, name: str, file: Path) -> None:
        import wandb

        self._run.log({"step": step, f"pictures/{name}": wandb.Image(str(file))})

    def close(self) -> None:
        self._run.finish(exit_code=int(self.failed))


class MlflowWriter(Writer):
    """A run of MLflow; `identity` is that of trackers.json, "" for a new run."""

    def __init__(self, workdir: Path, config: Mapping[str, Any], identity: str):
        # Its own defaults, two minutes seven times over, would hold up the training.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        from mlflow import MlflowClient

        self._client = MlflowClient()
        self.identity = identity
        if identity:
            self._client.update_run(identity, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "vit_jax")
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        self.identity = self._client.create_run(experiment, run_name=workdir.name).info.run_id
        self._write_params(config)

    def _write_params(self, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(_mlflow_key(key), str(value)[:500]) for key, value in _flat(config).items()]
        for start in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(self.identity, params=params[start : start + MOST_PARAMS])

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric

        now = round(1000 * time.time())
        metrics = [Metric(_mlflow_key(key), float(value), now, step) for key, value in scalars.items()]
        for start in range(0, len(metrics), 1000):
            self._client.log_batch(self.identity, metrics=metrics[start : start + 1000])

    def picture(self, step: int, name: str, file: Path) -> None:
        self._client.log_artifact(self.identity, str(file), "pictures")

    def close(self) -> None:
        self._client.set_terminated(self.identity, "FAILED" if self.failed else "FINISHED")


TRACKERS: dict[str, Callable[..., Any]] = {"wandb": WandbWriter, "mlflow": MlflowWriter}


class Guarded(Writer):
    """A tracker whose failures never end a run: the first is reported, and the tracker is tried again after PAUSE_S."""

    def __init__(self, name: str, tracker: Writer):
        self._name, self._tracker = name, tracker
        self._until, self._reported = 0.0, False

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        self._try(lambda: self._tracker.write(step, scalars))

    def picture(self, step: int, name: str, file: Path) -> None:
        self._try(lambda: self._tracker.picture(step, name, file))

    def close(self) -> None:
        self._tracker.failed = self.failed
        self._try(self._tracker.close)

    def _try(self, action: Callable[[], None]) -> None:
        if time.monotonic() < self._until:
            return
        try:
            action()
        except Exception as error:  # a network, a server, a full disk: the training is worth more
            self._until = time.monotonic() + PAUSE_S
            if not self._reported:
                self._reported = True
                why = printable(f"{type(error).__name__}: {error}"[:300])
                rest = "the run continues without it, and metrics.jsonl has every number"
                print(f"{self._name} does not take the run's numbers ({why}); {rest}", file=sys.stderr, flush=True)


def check_trackers(names: Sequence[str]) -> None:
    """Checks names of trackers, and that their packages are installed, before anything is computed.

    Raises:
      UserError: a name is unknown, or a package is missing.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"train.trackers has {name!r}; {nearest(name, TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"train.trackers={name} needs a package that is not installed: pip install 'vit_jax[{name}]', or leave it out"
            )


def open_trackers(names: Sequence[str], workdir: str | os.PathLike[str], config: Mapping[str, Any]) -> list[Writer]:
    """Opens a run's trackers; one that trackers.json knows continues its tracked run.

    Args:
      names: see `TRACKERS`.
      workdir: the run's folder.
      config: the resolved config, JSON types.

    Raises:
      UserError: a tracker cannot be reached, or does not know the run that the workdir names.
    """
    folder = Path(workdir)
    opened: list[Writer] = []
    file = folder / IDS
    ids = read_json(file, advice="remove it, and a new tracked run begins") if names and file.exists() else {}
    for name in names:
        try:
            tracker = TRACKERS[name](folder, config, str(ids.get(name, "")))
        except Exception as error:  # each library raises its own; the remedy is the same
            known = f" Its run is {ids[name]}: remove {file} to begin a new one." if name in ids else ""
            raise UserError(
                f"{name} cannot begin ({type(error).__name__}: {error}); check its address and key, or leave it out of "
                f"train.trackers.{known}"
            ) from error
        opened.append(Guarded(name, tracker))
        ids[name] = tracker.identity
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(ids) + "\n")
        partial.replace(file)
    return opened


def _flat(config: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return flat


def _mlflow_key(key: str) -> str:
    """A key of the characters that MLflow takes; names of classes may hold others."""
    return re.sub(r"[^\w\-. :/]", "_", key)[:250]
