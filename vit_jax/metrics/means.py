"""Exact averages: a sum and its weight, merged by addition."""

from __future__ import annotations

import math
from typing import Any, NamedTuple


class Mean(NamedTuple):
    """A weighted average, kept as its two sums so that padded, sharded and accumulated averages stay exact.

    `a + b` merges two averages (a plain tuple would be concatenated); `sum(means, Mean(0.0, 0.0))` merges many.

    Args:
      total: sum of weight * value; a float, a numpy scalar or a jax array, traced or not.
      weight: sum of the weights, which is the number of examples that count.
    """

    total: Any
    weight: Any

    def __add__(self, other: Mean) -> Mean:  # type: ignore[override]  # a tuple's + would concatenate, silently
        return Mean(self.total + other.total, self.weight + other.weight)

    @property
    def value(self) -> float:
        """The average on the host (a sync point). NaN where the weight is 0: no example is not a score of 0."""
        return float(self.total) / float(self.weight) if self.weight else math.nan
