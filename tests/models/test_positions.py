"""Position embeddings at another resolution: SciPy's zoom, which the release calls, is the judge."""

import numpy as np
import pytest
import scipy.ndimage

from vit_jax.models.positions import interpolation_matrix, resample_positions
from vit_jax.types import UserError

SQUARES = [(14, 24), (7, 12), (14, 32), (16, 37), (28, 48), (24, 14), (12, 7), (4, 6), (2, 2), (1, 3), (2, 9), (5, 1)]
GRIDS = [((14, 14), (24, 12)), ((4, 6), (6, 4)), ((3, 7), (9, 5)), ((1, 6), (3, 6)), ((7, 7), (1, 10))]


def draw(grid, d=3, cls=True, seed=0):
    n = grid[0] * grid[1] + cls
    return np.random.default_rng(seed).standard_normal((1, n, d)).astype(np.float32)


def zoomed(positions, old, new, cls, mode):
    """What `scipy.ndimage.zoom` makes of it, class token aside."""
    grid = positions[0, int(cls) :].reshape(*old, -1)
    result = scipy.ndimage.zoom(grid, (new[0] / old[0], new[1] / old[1], 1), order=1, mode=mode)
    assert result.shape[:2] == new
    return result


@pytest.mark.parametrize("cls", [True, False])
@pytest.mark.parametrize(("old", "new"), [((a, a), (b, b)) for a, b in SQUARES] + GRIDS)
def test_resampling_is_scipys_zoom(old, new, cls):
    positions = draw(old, cls=cls)
    result = resample_positions(positions, old, new, has_class_token=cls)
    assert result.dtype == np.float32
    assert result.shape == (1, new[0] * new[1] + cls, 3)
    expected = zoomed(positions, old, new, cls, "nearest").reshape(-1, 3)
    np.testing.assert_allclose(result[0, int(cls) :], expected, rtol=0, atol=2e-6)


def test_all_small_sizes_are_scipys_zoom():
    rng = np.random.default_rng(0)
    for old in range(1, 33):
        line = rng.standard_normal(old)
        for new in range(1, 65):
            expected = scipy.ndimage.zoom(line, new / old, order=1, mode="nearest")
            np.testing.assert_allclose(
                interpolation_matrix(old, new) @ line, expected, atol=1e-6, err_msg=f"{old} {new}"
            )


@pytest.mark.parametrize(("old", "new"), [(14, 24), (7, 12), (14, 32), (16, 37)])
def test_where_the_release_is_sound_ours_is_the_releases(old, new):
    positions = draw((old, old))
    released = zoomed(positions, (old, old), (new, new), True, "constant").reshape(-1, 3)
    result = resample_positions(positions, (old, old), (new, new), has_class_token=True)
    np.testing.assert_allclose(result[0, 1:], released, rtol=0, atol=2e-6)


def test_b8_at_384_pixels_keeps_its_last_row_and_column():
    # 28 -> 48: the release's zoom gives zeros in the last row and column. Inside, ours is the release's; at the corners
    # it is the old corners.
    positions = draw((28, 28))
    released = zoomed(positions, (28, 28), (48, 48), True, "constant")
    result = resample_positions(positions, (28, 28), (48, 48), has_class_token=True)[0, 1:].reshape(48, 48, 3)
    np.testing.assert_allclose(result[:-1, :-1], released[:-1, :-1], rtol=0, atol=2e-6)
    old = positions[0, 1:].reshape(28, 28, 3)
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        np.testing.assert_allclose(result[corner], old[corner], rtol=0, atol=1e-6)
    assert np.abs(result[-1]).min(axis=0).max() > 0


def test_the_class_token_is_kept_to_the_bit():
    positions = draw((4, 4))
    result = resample_positions(positions, (4, 4), (7, 5), has_class_token=True)
    assert np.array_equal(result[:, :1], positions[:, :1])


def test_the_same_grid_is_the_identity():
    positions = draw((3, 5))
    assert np.array_equal(resample_positions(positions, (3, 5), (3, 5), has_class_token=True), positions)


def test_two_by_two_to_three_by_three_by_hand():
    positions = np.array([1.0, 3.0, 5.0, 11.0], np.float32).reshape(1, 4, 1)
    result = resample_positions(positions, (2, 2), (3, 3), has_class_token=False)
    assert result.ravel().tolist() == [1, 2, 3, 3, 5, 7, 5, 8, 11]


@pytest.mark.parametrize("cls", [True, False])
def test_whether_there_is_a_class_token_is_not_guessed(cls):
    positions = draw((3, 3), cls=not cls)
    with pytest.raises(UserError, match=f"hold {9 + (not cls)} entries, but a 3x3 grid .* has {9 + cls}"):
        resample_positions(positions, (3, 3), (4, 4), has_class_token=cls)
