"""Masks, colours and patches against hand and numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.train import masking
from vit_jax.train.masking import PatchGrid
from vit_jax.types import UserError

GRID = PatchGrid((4, 6), (8, 4))  # images of 32 x 24
KEYS = jax.random.split(jax.random.key(0), 64)


def images(b=3, h=32, w=24, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (b, h, w, 3), np.uint8)


def test_squares_are_hidden_whole_in_the_same_number_of_every_image():
    hidden = np.asarray(masking.hide_cells(KEYS, GRID, (16, 8), 0.6)).reshape(64, 2, 2, 3, 2)  # 2 x 3 squares of 2 x 2
    first = hidden[:, :, :1, :, :1]
    assert (hidden == first).all()
    assert (first.sum(axis=(1, 2, 3, 4)) == 4).all()  # ceil(0.6 x 6)
    assert len({row.tobytes() for row in hidden}) > 10  # of the 15 choices
    rates = first.mean(axis=0).ravel()
    assert np.abs(rates - 4 / 6).max() < 0.25


@pytest.mark.slow
def test_a_mask_depends_on_its_own_key_alone():
    whole = masking.hide_cells(KEYS, GRID, (8, 4), 0.5)
    np.testing.assert_array_equal(masking.hide_cells(KEYS[5:9], GRID, (8, 4), 0.5), whole[5:9])


@pytest.mark.slow
def test_an_images_key_depends_on_its_pixels_alone():
    x = images(6)
    keys = jax.random.key_data(masking.keys_of_images(jnp.asarray(x)))
    again = jax.random.key_data(masking.keys_of_images(jnp.asarray(x[[4, 1]])))
    np.testing.assert_array_equal(again, keys[jnp.array([4, 1])])
    assert len({tuple(key) for key in keys.tolist()}) == 6
    x[0, 0, 0, 0] ^= 1
    other = jax.random.key_data(masking.keys_of_images(jnp.asarray(x)))
    assert (other[0] != keys[0]).any()


@pytest.mark.parametrize(
    ("cell", "ratio", "message"),
    [
        ((12, 4), 0.6, r"mask_patch is 12x4 pixels, which the model's patch of 8x4 does not divide"),
        ((4, 4), 0.6, r"mask_patch is 4x4 pixels, which the model's patch of 8x4 does not divide"),
        ((24, 4), 0.6, r"mask_patch is 24x4 pixels, which does not divide the image of 32x24"),
        ((8, 4), 0.0, r"objective.ratio is 0.0; expected above 0 and below 1"),
        ((8, 4), 1.0, r"objective.ratio is 1.0; expected above 0 and below 1"),
        ((32, 12), 0.6, r"objective.ratio is 0.6, which hides all 2 cells of 32x12 pixels"),
        ((12, 4), 1.0, r"ratio is 1.0(.|\n)*does not divide"),
    ],
)
def test_squares_and_ratios_that_cannot_be_are_refused(cell, ratio, message):
    with pytest.raises(UserError, match=message):
        masking.check_cells(GRID, cell, ratio)


def test_good_squares_are_not_refused():
    masking.check_cells(PatchGrid((14, 14), (16, 16)), (32, 32), 0.6)
    # 49 squares, of which 30 are hidden: 120 of 196 patches, as SimMIM hides at 224 pixels.
    hidden = masking.hide_cells(KEYS[:2], PatchGrid((14, 14), (16, 16)), (32, 32), 0.6)
    assert hidden.sum(axis=1).tolist() == [120, 120]


@pytest.mark.slow
def test_half_of_the_patches_is_corrupted_and_of_those_eight_tenths_are_masked_and_one_replaced():
    n, b = 100, 64
    drawn = masking.corrupt(KEYS, n, 0.5, exact=True, masked=0.8, replaced=0.1)
    hidden, other, corrupted = (np.asarray(drawn.extra[name]) for name in ("hidden", "other", "corrupted"))
    assert (corrupted.sum(axis=1) == 50).all()
    assert not (hidden & ~corrupted).any()
    moved = other != np.arange(n)
    assert not (moved & ~corrupted).any()
    assert not (moved & hidden).any()
    total = b * 50
    deviation = np.sqrt(0.1 * 0.9 / total)
    assert abs(hidden.sum() / total - 0.8) < 4 * np.sqrt(0.16 / total)
    assert abs(moved.sum() / total - 0.1) < 4 * deviation  # never itself, so every replaced patch has moved
    assert 0 <= other.min() <= other.max() < n
    assert set(drawn.inputs) == {"hidden", "other"}
    loose = masking.corrupt(KEYS, n, 0.5, exact=False, masked=0.8, replaced=0.1).extra["corrupted"].sum(axis=1)
    assert len(set(loose.tolist())) > 5
    assert abs(loose.mean() - 50) < 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, r"objective.corrupt is 0.0; expected above 0 and below 1"),
        ({"share": 1.0}, r"objective.corrupt is 1.0; expected above 0 and below 1"),
        ({"share": 0.01}, r"objective.corrupt is 0.01 of 24 patches: none, or all"),
        ({"masked": 0.9, "replaced": 0.2}, r"objective.masked is 0.9 and objective.replaced 0.2; expected shares"),
        ({"grid": PatchGrid((4, 4), (14, 14)), "target": "patch_4x4"}, r"4 does not divide 14x14 pixels"),
    ],
)
def test_corruption_that_cannot_be_is_refused(options, message):
    given = {"grid": GRID, "target": "pixels", "share": 0.5, "masked": 0.8, "replaced": 0.1, **options}
    with pytest.raises(UserError, match=message):
        masking.check_corruption(*given.values())


def test_patches_are_cut_row_by_row_and_put_together_again():
    x = images()
    patches = np.asarray(masking.to_patches(jnp.asarray(x), GRID))
    np.testing.assert_array_equal(patches[:, 7].reshape(3, 8, 4, 3), x[:, 8:16, 4:8])  # row 1, column 1 of 6
    np.testing.assert_array_equal(masking.from_patches(jnp.asarray(patches), GRID), x)


def test_a_mean_colours_class_counts_levels_of_32():
    x = np.zeros((1, 4, 8, 3), np.uint8)
    x[0, :, :4] = (255, 0, 32)  # levels 7, 0, 1
    x[0, :, 4:, 0], x[0, :2, 4:, 1] = 31, 255  # red 31 is level 0; green 127.5 level 3
    grid = PatchGrid((1, 2), (4, 4))
    assert masking.colours_of(jnp.asarray(x), grid, 1)[0, :, 0].tolist() == [7 * 64 + 1, 3 * 8]
    # A mean of exactly 32, with a pixel of 31 and one of 33, is level 1: its sum is an integer.
    x[0, :, :4, 2] = np.where(np.arange(4) % 2, 31, 33)
    assert masking.colours_of(jnp.asarray(x), grid, 1)[0, 0, 0] == 7 * 64 + 1


def test_colours_of_parts_are_means_of_areas():
    x, grid = images(2, 16, 24), PatchGrid((2, 3), (8, 8))
    found = np.asarray(masking.colours_of(jnp.asarray(x), grid, 4))
    assert found.shape == (2, 6, 16)
    for n, part in np.ndindex(6, 16):
        top, left = n // 3 * 8 + part // 4 * 2, n % 3 * 8 + part % 4 * 2
        level = np.floor(x[:, top : top + 2, left : left + 2].mean(axis=(1, 2)) * 8 / 256)
        np.testing.assert_array_equal(found[:, n, part], level @ [64, 8, 1])


def test_painted_colours_are_of_their_own_class():
    grid = PatchGrid((2, 3), (8, 8))
    classes = jnp.asarray(np.random.default_rng(0).integers(0, 512, (2, 6, 16)))
    pictures = masking.paint_colours(classes, grid)
    stored = np.round(np.asarray(pictures) * 127.5 + 127.5).astype(np.uint8)
    np.testing.assert_array_equal(masking.colours_of(jnp.asarray(stored), grid, 4), classes)


def test_patches_are_normalised_by_their_unbiased_deviation():
    patches = np.random.default_rng(0).standard_normal((2, 3, 5, 3))
    normal, mean, deviation = masking.normalise_patches(jnp.asarray(patches, jnp.float32))
    flat = patches.reshape(2, 3, 15)
    np.testing.assert_allclose(deviation[..., 0, 0], np.sqrt(flat.var(axis=-1, ddof=1) + 1e-6), rtol=1e-5)
    expected = (flat - flat.mean(-1, keepdims=True)) / np.sqrt(flat.var(-1, ddof=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(normal.reshape(2, 3, 15), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(normal * deviation + mean, patches, rtol=1e-4, atol=1e-5)


def test_the_mean_over_chosen_patches_is_zero_where_none_is_chosen():
    values = jnp.asarray([[1.0, 2.0, 9.0], [4.0, 5.0, 6.0]])
    chosen = jnp.asarray([[True, True, False], [False, False, False]])
    assert masking.mean_over(values, chosen).tolist() == [1.5, 0.0]


def test_a_picture_shows_visible_patches_as_they_are():
    x = masking.to_patches(masking.to_range(jnp.asarray(images())), GRID)
    hidden = jnp.asarray(np.random.default_rng(0).random((3, 24)) < 0.5)
    shown = masking.show(x, x * 0 + 0.25, hidden, GRID, ", as a note")
    assert list(shown) == ["original", "masked", "reconstructed, as a note"]
    np.testing.assert_allclose(shown["original"], images() / 127.5 - 1, atol=1e-6)
    rebuilt = masking.to_patches(shown["reconstructed, as a note"], GRID)
    np.testing.assert_array_equal(rebuilt[hidden], np.full_like(rebuilt[hidden], 0.25))
    np.testing.assert_array_equal(rebuilt[~hidden], x[~hidden])
    np.testing.assert_array_equal(masking.to_patches(shown["masked"], GRID)[hidden], 0)
