"""Position embeddings: their values, and what becomes of them at another resolution.

SciPy's zoom, which the release calls, is the judge of the default method; OpenCV and Pillow are of the others.
"""

import math

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import numpy_options
import pytest
import scipy.ndimage
from PIL import Image

from vit_jax.models.positions import (
    PositionEmbedding,
    RelativePositions,
    interpolation_matrix,
    resample_axis,
    resample_positions,
    resample_relative,
    sincos_2d,
)
from vit_jax.models.vit import VisionTransformer
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


# Half-pixel centres, as other libraries resize


def test_half_pixel_bilinear_weights_by_hand():
    assert interpolation_matrix(2, 4, "bilinear").tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    # 6 -> 2 reads halfway between inputs 0 and 2, and between 3 and 5: nothing is averaged over what is skipped.
    assert interpolation_matrix(6, 2, "bilinear").tolist() == [[0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0]]
    # With aligned corners, for contrast, 2 -> 4 samples at 0, 1/3, 2/3, 1.
    np.testing.assert_allclose(interpolation_matrix(2, 4), [[1, 0], [2 / 3, 1 / 3], [1 / 3, 2 / 3], [0, 1]], atol=1e-15)


def test_bicubic_weights_by_hand():
    # Keys' kernel with a = -3/4: ((a + 2)|x| - (a + 3))x^2 + 1 below 1, a(|x|^3 - 5x^2 + 8|x| - 4) below 2. 4 -> 8 samples
    # at -1/4, 1/4, 3/4, 5/4, ...; beyond the border is the border again.
    at_025, at_075, at_125, at_175 = 0.87890625, 0.26171875, -0.10546875, -0.03515625
    assert interpolation_matrix(4, 8, "bicubic")[:5].tolist() == [
        [at_175 + at_075 + at_025, at_125, 0, 0],
        [at_125 + at_025, at_075, at_175, 0],
        [at_175 + at_075, at_025, at_125, 0],
        [at_125, at_025, at_075, at_175],
        [at_175, at_075, at_025, at_125],
    ]


def test_antialiased_bicubic_weights_by_hand():
    # Keys' kernel with a = -1/2, twice as wide where 4 becomes 2: input j of output 0 is |j + 1/2 - 1| / 2 away.
    at_025, at_075, at_125 = 0.8671875, 0.2265625, -0.0703125
    total = 2 * at_025 + at_075 + at_125
    first = [at_025 / total, at_025 / total, at_075 / total, at_125 / total]
    np.testing.assert_allclose(interpolation_matrix(4, 2, "bicubic_antialias"), [first, first[::-1]], rtol=1e-12)


def test_small_sizes_are_opencvs_and_pillows():
    rng = np.random.default_rng(0)
    for old in range(1, 17):
        line = rng.standard_normal(old).astype(np.float32)
        image = np.stack([line] * 4)
        for new in range(1, 33):
            expected = {
                "bilinear": cv2.resize(image, (new, 4), interpolation=cv2.INTER_LINEAR)[0],
                "bicubic": cv2.resize(image, (new, 4), interpolation=cv2.INTER_CUBIC)[0],
                "bicubic_antialias": np.asarray(Image.fromarray(image).resize((new, 4), Image.Resampling.BICUBIC))[0],
            }
            for method, values in expected.items():
                result = interpolation_matrix(old, new, method) @ line
                np.testing.assert_allclose(result, values, atol=3e-6, err_msg=f"{method} {old} {new}")


def test_the_method_asked_for_resizes_rows_and_columns_and_not_the_class_token():
    positions = draw((3, 5))
    result = resample_positions(positions, (3, 5), (7, 4), has_class_token=True, method="bicubic")
    expected = cv2.resize(positions[0, 1:].reshape(3, 5, 3), (4, 7), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(result[0, 1:], expected.reshape(28, 3), atol=3e-6)
    assert np.array_equal(result[:, :1], positions[:, :1])


# Two axes


def embedding(kind, grid, cls, params, d=8):
    module = PositionEmbedding(kind, grid, cls, jnp.dtype("float32"))
    return np.asarray(module.apply({"params": params}, jnp.zeros((2, grid[0] * grid[1] + cls, d))))


@pytest.mark.parametrize("cls", [False, True])
def test_two_axes_are_a_column_table_beside_a_row_table(cls):
    x, y = np.array([[1, 2], [3, 4], [5, 6]], np.float32), np.array([[10, 20], [30, 40]], np.float32)
    result = embedding("learned_2d", (2, 3), cls, {"pos_embedding_x": x[None], "pos_embedding_y": y[None]}, d=4)
    nothing = [[0, 0, 0, 0]] if cls else []
    top, bottom = ([[*column, *row] for column in x.tolist()] for row in y.tolist())
    assert result.tolist() == [nothing + top + bottom]


def test_an_axis_by_hand():
    table = np.array([[[0, 10], [1, 30], [4, 20]]], np.float32)
    assert resample_axis(table, 5).tolist() == [[[0, 10], [0.5, 20], [1, 30], [2.5, 25], [4, 20]]]
    # Two outputs of half-pixel centres sample at 1/4 and 7/4.
    assert resample_axis(table, 2, "bilinear").tolist() == [[[0.25, 15], [3.25, 22.5]]]
    assert resample_axis(table, 5).dtype == np.float32


@pytest.mark.slow
def test_resizing_the_axes_resizes_the_whole_table():
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((1, side, 4)).astype(np.float32) for side in (3, 2))
    small = embedding("learned_2d", (2, 3), True, {"pos_embedding_x": x, "pos_embedding_y": y})
    expected = resample_positions(small, (2, 3), (5, 4), has_class_token=True)
    tables = {"pos_embedding_x": resample_axis(x, 4), "pos_embedding_y": resample_axis(y, 5)}
    np.testing.assert_allclose(embedding("learned_2d", (5, 4), True, tables), expected, atol=1e-6)


# Sines and cosines


def test_sines_and_cosines_by_hand():
    # Of 8 channels: wavelengths 2 pi and 2 pi 10^4; the column first. The patch in row 1 and column 2 is the last of 2x3.
    expected = [f(at * rate) for at in (2, 1) for f in (math.sin, math.cos) for rate in (1.0, 1e-4)]
    np.testing.assert_allclose(sincos_2d((2, 3), 8)[5], expected, atol=1e-7)
    assert sincos_2d((2, 3), 8)[0].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    np.testing.assert_allclose(sincos_2d((4, 3), 20), numpy_options.sincos((4, 3), 20), atol=1e-7)
    # A width of 4 has one wavelength per axis.
    np.testing.assert_allclose(sincos_2d((1, 2), 4)[1], [math.sin(1), math.cos(1), 0, 1], atol=1e-7)


def test_fixed_positions_give_the_class_token_none():
    result = embedding("sincos_2d", (2, 3), True, {})
    assert result[0, 0].tolist() == [0] * 8
    assert np.array_equal(result[0, 1:], sincos_2d((2, 3), 8))


def test_centred_positions_are_a_detectors():
    result = embedding("sincos_centred", (2, 3), True, {})
    table = numpy_options.sincos((2, 3), 8, 20.0)
    np.testing.assert_allclose(result[0, 1:], 0.3 * (table - table.mean(axis=0)), atol=1e-6)
    assert result[0, 0].tolist() == [0] * 8


def test_with_a_detectors_positions_keys_begin_as_copies_of_queries():
    drawn = {"a/query/kernel": jnp.ones(2), "a/key/kernel": jnp.zeros(2), "a/key/bias": jnp.full(2, 3.0)}
    for model, key in (
        (VisionTransformer(num_classes=10, positions="sincos_centred"), 1.0),
        (VisionTransformer(num_classes=10), 0.0),
    ):
        redrawn = model.redraw(drawn)
        assert {name: x.tolist() for name, x in redrawn.items()} == {
            "a/query/kernel": [1.0, 1.0],
            "a/key/kernel": [key, key],
            "a/key/bias": [3.0, 3.0],
        }
        assert redrawn["a/key/kernel"].unsafe_buffer_pointer() != drawn["a/query/kernel"].unsafe_buffer_pointer()


# Relative positions


@pytest.mark.parametrize("cls", [False, True])
def test_relative_logits_are_the_query_times_the_embedding_of_its_offset(cls):
    n, patches = 6 + cls, 6
    rng = np.random.default_rng(0)
    q = rng.standard_normal((2, n, 2, 4)).astype(np.float32)
    table = rng.standard_normal((11 + 3 * cls, 2, 4)).astype(np.float32)
    module = RelativePositions((2, 3), cls, jnp.dtype("float32"))
    result = module.apply({"params": {"rel_embedding": jnp.asarray(table)}}, jnp.asarray(q))
    assert result.shape == (2, 2, n, n)
    for i in range(n):
        for j in range(n):
            entry = i - j + patches - 1
            if cls and 0 in (i, j):
                entry = {(True, True): 11, (True, False): 12, (False, True): 13}[i == 0, j == 0]
            expected = (q[:, i].astype(np.float64) * table[entry]).sum(axis=-1)
            np.testing.assert_allclose(result[:, :, i, j], expected, atol=1e-5, err_msg=f"{i} {j}")
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.asarray(q))["params"]
    assert shapes["rel_embedding"].shape == table.shape


def offsets(grid, cls=True, seed=0):
    shape = (2 * grid[0] * grid[1] - 1 + 3 * cls, 2, 4)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("cls", [False, True])
@pytest.mark.parametrize("grid", [(3, 3), (2, 5), (1, 4), (4, 1)])
def test_a_table_of_offsets_on_its_own_grid_stays(grid, cls):
    table = offsets(grid, cls)
    np.testing.assert_allclose(resample_relative(table, grid, grid), table, rtol=0, atol=1e-6)


def mean_over_pairs(value, grid):
    """A function of (dy, dx) as a table of 1-D offsets: its mean over the pairs of patches at each offset."""
    patches = [(y, x) for y in range(grid[0]) for x in range(grid[1])]
    found = {}
    for i, (qy, qx) in enumerate(patches):
        for j, (ky, kx) in enumerate(patches):
            found.setdefault(i - j, []).append(value(qy - ky, qx - kx))
    return np.array([np.mean(found[offset]) for offset in sorted(found)])


@pytest.mark.parametrize(("old", "new"), [((3, 3), (5, 5)), ((2, 4), (5, 3)), ((4, 5), (3, 3))])
def test_offsets_are_resized_in_two_dimensions(old, new):
    # Where the 1-D embedding is the offset itself, dy * width + dx in 2-D, one step of the new grid is a fraction of a
    # step of the old one, in each direction its own.
    line = np.arange(1 - old[0] * old[1], old[0] * old[1], dtype=np.float32)
    table = np.concatenate([line, [100, 200, 300]])[:, None, None].astype(np.float32)
    fy, fx = (old[0] - 1) / (new[0] - 1), (old[1] - 1) / (new[1] - 1)
    expected = mean_over_pairs(lambda dy, dx: dy * fy * old[1] + dx * fx, new)
    result = resample_relative(table, old, new)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[:-3, 0, 0], expected, atol=1e-4)
    assert result[-3:, 0, 0].tolist() == [100, 200, 300]


def test_offsets_follow_the_method_asked_for():
    # A 1x2 grid has offsets -1, 0, 1; a 1x4 grid -3 .. 3. Half-pixel centres: (i + 1/2) * 3/7 - 1/2, within 0 and 2.
    table = np.array([1.0, 2.0, 5.0], np.float32)[:, None, None]
    at = np.clip((np.arange(7) + 0.5) * 3 / 7 - 0.5, 0, 2)
    expected = np.interp(at, [0, 1, 2], [1, 2, 5])
    np.testing.assert_allclose(resample_relative(table, (1, 2), (1, 4), "bilinear")[:, 0, 0], expected, atol=1e-6)
    corners = np.interp(np.arange(7) / 3, [0, 1, 2], [1, 2, 5])
    np.testing.assert_allclose(resample_relative(table, (1, 2), (1, 4))[:, 0, 0], corners, atol=1e-6)


def test_fixed_positions_over_a_grid_lie_between_those_of_its_patches():
    # One place over 3 x 3 patches is the middle patch; two columns over four patches lie at columns 0.5 and 2.5.
    np.testing.assert_allclose(sincos_2d((1, 1), 16, over=(3, 3))[0], sincos_2d((3, 3), 16)[4], atol=1e-6)
    np.testing.assert_array_equal(sincos_2d((2, 3), 16, over=(2, 3)), sincos_2d((2, 3), 16))
    found = sincos_2d((1, 2), 8, over=(1, 4))  # the fastest frequency is 1
    np.testing.assert_allclose(found[:, 0], np.sin([0.5, 2.5]), rtol=1e-6)
