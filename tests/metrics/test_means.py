"""Exact averages: a sum and its weight."""

import math

import numpy as np
import pytest

from vit_jax.metrics.means import Mean


def test_mean_over_unequal_shards_is_the_mean_over_examples():
    # 3 of 4 right on one shard, 1 of 1 on the other: 4 of 5 right. The mean of the means would be 0.875.
    merged = Mean(np.float32(3), np.float32(4)) + Mean(1.0, 1.0)
    assert merged == (4.0, 5.0)
    assert merged.value == pytest.approx(0.8, abs=0)
    assert isinstance(merged.value, float)


def test_mean_sums_over_many_shards_and_over_jax_arrays():
    import jax
    import jax.numpy as jnp

    shards = [Mean(jnp.asarray(float(n)), jnp.asarray(n)) for n in (1, 2, 3)]
    assert sum(shards, Mean(0.0, 0.0)).value == 1.0
    assert jax.jit(lambda a, b: a + b)(Mean(jnp.float32(1), jnp.float32(2)), Mean(2.0, 2.0)).value == 0.75


def test_mean_of_nothing_is_nan_and_not_a_score():
    assert math.isnan(Mean(0.0, 0.0).value)
    assert math.isnan(Mean(np.float32(0), np.float32(0)).value)
