"""Fitting a checkpoint to a model, tensor by tensor, and the report of it."""

import numpy as np
import pytest

from vit_jax.convert import adapt
from vit_jax.convert.adapt import Fate, format_report
from vit_jax.convert.architecture import infer_grid
from vit_jax.convert.source import Source
from vit_jax.types import UserError

POSITIONS = "Transformer/posembed_input/pos_embedding"


def tensors(n=5, classes=3, dtype=np.float32):
    return {
        "cls": np.full((1, 1, 2), 7, dtype),
        POSITIONS: np.arange(n * 2, dtype=dtype).reshape(1, n, 2),
        "head/kernel": np.ones((2, classes), dtype),
        "head/bias": np.full(classes, 2, dtype),
    }


def fit_params(source, fresh, *, old_grid=None, **options):
    grid = old_grid or infer_grid(source, {"pool": "token"})
    return adapt.fit_params(Source("a.npz", "npz", source, {"pool": "token"}, grid), fresh, **options)


def test_every_tensor_of_either_side_is_reported_once():
    source = tensors() | {"pre_logits/bias": np.zeros(2, np.float32)}
    _, report = fit_params(source, tensors(10, 4), head="zeros", new_grid=(3, 3))
    assert sorted(report) == sorted(
        [
            Fate("cls", "loaded", "1x1x2"),
            Fate(POSITIONS, "resized", "2x2 -> 3x3, bilinear_corners"),
            Fate("head/kernel", "fresh", "2x4 new head (init.head=zeros)"),
            Fate("head/bias", "fresh", "4 new head (init.head=zeros)"),
            Fate("head/kernel", "dropped", "2x3 old head (init.head=zeros)"),
            Fate("head/bias", "dropped", "3 old head (init.head=zeros)"),
            Fate("pre_logits/bias", "dropped", "2 old head (init.head=zeros)"),
        ]
    )


def test_a_head_of_the_same_shape_is_new_all_the_same():
    fresh = tensors() | {"head/bias": np.full(3, -10, np.float32)}
    params, _ = fit_params(tensors(), fresh, head="zeros", new_grid=(2, 2))
    assert params["head/bias"].tolist() == [-10] * 3
    kept, _ = fit_params(tensors(), fresh, head="keep", new_grid=(2, 2))
    assert kept["head/bias"].tolist() == [2] * 3


def test_values_take_the_models_dtype():
    params, _ = fit_params(tensors(dtype=np.float64), tensors(), head="keep", new_grid=(2, 2))
    assert {value.dtype for value in params.values()} == {np.dtype(np.float32)}
    assert np.array_equal(params[POSITIONS], tensors()[POSITIONS])


def test_positions_of_a_grid_that_is_not_square_need_it_said():
    source, fresh = tensors(7), tensors(13)
    with pytest.raises(UserError, match=r"has 6 positions, not a square grid, and a\.npz does not say which"):
        fit_params(source, fresh, head="keep", new_grid=(3, 4))
    params, report = fit_params(source, fresh, head="keep", new_grid=(3, 4), old_grid=(2, 3))
    assert report[1].detail.startswith("2x3 -> 3x4")
    # Corners aligned: the four corners and the class token's entry are the old ones.
    old, new = source[POSITIONS][0], params[POSITIONS][0]
    assert np.array_equal(new[[0, 1, 4, 9, 12]], old[[0, 1, 3, 4, 6]])


def test_a_grid_the_positions_contradict_is_an_error():
    with pytest.raises(UserError, match="hold 5 entries, but a 3x3 grid with class token has 10"):
        fit_params(tensors(), tensors(17), head="keep", new_grid=(4, 4), old_grid=(3, 3))


def test_equal_counts_on_another_grid_are_resampled_and_not_just_copied():
    # 2x3 and 3x2 have six entries each; as rows of two, not of three, they lie elsewhere.
    params, report = fit_params(tensors(7), tensors(7), head="keep", new_grid=(3, 2), old_grid=(2, 3))
    assert report[1].action == "resized"
    # Column 0 of the old grid (entries 1 and 4) at heights 0, 1/2, 1.
    assert params[POSITIONS][0, [1, 3, 5]].tolist() == [[2, 3], [5, 6], [8, 9]]


def test_the_report_counts_and_shows_what_was_not_simply_loaded():
    report = [Fate("a", "loaded", "3"), Fate("b", "loaded", "4"), Fate("c", "dropped", "5 old head")]
    assert format_report(report) == "2 loaded, 1 dropped\n  dropped  c 5 old head"
    assert format_report(report, every_leaf=True).splitlines()[1:3] == ["  loaded   a 3", "  loaded   b 4"]
