"""Cells of the tables: what they print, and what competes for the best."""

import pytest

from vit_jax.report.table import Cell, percent


def test_the_spread_of_one_value_is_none_and_of_none_there_is_no_value():
    assert percent([0.25], 1) == Cell(25.0, None, 1)
    assert percent([], 1).value is None
    assert percent([0.1, 0.2], 1).std == pytest.approx(7.0710678, abs=1e-6)
