"""The files of a sweep: what is written is read back, and what is damaged is one message."""

import pytest
from made import leave_result, result_of

from vit_jax.sweeps.results import read_results, spread


def test_results_are_read_back_as_written(grid, tmp_path):
    runs = grid.dev_runs("a")
    for run in reversed(runs):
        leave_result(tmp_path, run, 0.25, resolution=(384, 512))
    found = read_results(tmp_path)
    assert list(found) == [run.folder(tmp_path) for run in runs]
    assert list(found.values()) == [result_of(run, 0.25, resolution=(384, 512)) for run in runs]


def test_spread_is_the_sample_deviation():
    assert spread([0.1, 0.2, 0.3])[0] == pytest.approx(0.2)
    assert spread([0.1, 0.2, 0.3]).std == pytest.approx(0.1)  # sqrt((0.01 + 0 + 0.01) / 2)
    assert spread([0.5]).std != spread([0.5]).std  # nan: one value has none
    assert spread([]).num == 0
