"""A run's work besides training: running the evaluators that are due, and describing each checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from vit_jax import config as configs
from vit_jax.data.stream.loader import TrainLoader
from vit_jax.metrics.writers import MetricWriters
from vit_jax.run import record
from vit_jax.run.assemble import grid_of
from vit_jax.run.job import Job
from vit_jax.train.patience import Patience
from vit_jax.types import KINDS, Metric, TrainState


@dataclasses.dataclass(frozen=True)
class RunHooks:
    """A run's work besides training: scores, and the description of its checkpoints (`loop.Hooks`)."""

    job: Job
    folder: epath.Path
    loader: TrainLoader
    patience: Patience = dataclasses.field(default_factory=Patience)
    writers: MetricWriters = dataclasses.field(default_factory=lambda: MetricWriters([]))  # get the pictures

    @property
    def over(self) -> bool:
        """Whether the last evaluation ends the run early."""
        return self.patience.is_over

    def evaluate(self, step: int, state: TrainState) -> dict[str, float]:
        """Results of the evaluators due at a step (of all at the last step, and where patience ends the run), on the raw weights
        and, if the run keeps one, on their average.

        The last step writes the per-example arrays to `predictions/<evaluator>.npz`, from the average if the run keeps one.
        """
        scores = self._evaluate(step, state, step == self.job.total_steps)
        if self.patience.observe(scores) and step != self.job.total_steps:
            scores = self._evaluate(step, state, last=True)
        return scores

    def _evaluate(self, step: int, state: TrainState, last: bool) -> dict[str, float]:
        scores: dict[str, float] = {}
        for name, evaluator in self.job.evaluators.items():
            if step % max(self.job.to_steps(evaluator.every), 1) and not last:
                continue
            examples: Mapping[str, np.ndarray] = {}
            for kind, params in zip(KINDS, (state.params, state.average), strict=True):
                if params is not None:
                    values, examples, picture = self.job.scorers[name](params)
                    scores |= {str(Metric(kind, name, metric)): value for metric, value in values.items()}
                    if picture is not None and jax.process_index() == 0:
                        file = self.folder / "pictures" / f"{name}-{step}.png"
                        record.write_picture(file, picture)
                        self.writers.picture(step, name, Path(file))
            if examples and last and jax.process_index() == 0:
                record.write_predictions(self.folder / "predictions" / f"{name}.npz", examples)
        return scores

    def _target(self) -> dict[str, str]:
        """The kind of target, where the outputs are no scores of classes that exclude each other."""
        kind = type(self.job.specs[0].target).__name__
        return {} if kind == "ClassId" else {"target": kind}

    def describe(self, step: int) -> dict[str, Any]:
        """The meta of a checkpoint: everything that a reader needs besides the arrays."""
        return {
            "step": step,
            "data": {"next_example": step * self.job.batch_size, "corrupt": sorted(self.loader.corrupt)},
            "config": configs.to_dict(self.job.config),
            "class_names": list(self.job.specs[0].class_names),
            **({"class_ids": list(ids)} if (ids := self.job.source.class_ids) else {}),
            "preprocessing": self.job.preprocessing(),
            "grid": list(grid_of(self.job.config)),
            **self.patience.to_meta(),
            **self._target(),
        }
