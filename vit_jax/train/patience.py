"""Early stopping: a run ends when its best metric has not improved for some evaluations; a resumed run has the same count."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass
class Patience:
    """How long a run has waited for a better score.

    Args:
      metric: an evaluation result, higher is better.
      limit: evaluations without a better score after which the run ends; 0 for no end.
      best: the best score so far.
      stale: evaluations since then.
    """

    metric: str = ""
    limit: int = 0
    best: float = -math.inf
    stale: int = 0

    @classmethod
    def resume(cls, metric: str, limit: int, meta: Mapping[str, Any]) -> Patience:
        """The patience of a run whose checkpoint has this meta; a new one if the checkpoint has none."""
        saved = meta.get("patience") or {}
        best = saved.get("best")
        return cls(metric, limit, -math.inf if best is None else best, saved.get("stale", 0))

    @property
    def is_over(self) -> bool:
        """Whether the run ends."""
        return 0 < self.limit <= self.stale

    def observe(self, scores: Mapping[str, float]) -> bool:
        """Takes the results of an evaluation into account; returns `is_over`. A score that is no number is not better."""
        if self.limit and self.metric in scores:
            better = scores[self.metric] > self.best
            self.best, self.stale = (scores[self.metric], 0) if better else (self.best, self.stale + 1)
        return self.is_over

    def to_meta(self) -> dict[str, Any]:
        """The part of a checkpoint's meta that `resume` reads; {} if the run has no such end."""
        best = self.best if math.isfinite(self.best) else None
        return {"patience": {"best": best, "stale": self.stale}} if self.limit else {}

    def __str__(self) -> str:
        return (
            f"early stop: {self.metric} has not exceeded {self.best:.4g} in {self.stale} evaluations (train.patience)"
        )
