"""Resizes, crops and flips against hand-written numpy and numbers worked out on paper."""

import numpy as np
import pytest

from vit_jax.data.image.crops import central_box, cut, flip, random_box, resize, sample_box
from vit_jax.data.image.recipes import make_transform


def resize_reference(image, size):
    """Bilinear with half-pixel centres and clamped edges, in float64."""
    result = image.astype(np.float64)
    for axis, new in enumerate(size):
        old = image.shape[axis]
        where = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(where).astype(int)
        high = np.minimum(low + 1, old - 1)
        weight = (where - low).reshape([-1 if a == axis else 1 for a in range(3)])
        result = result.take(low, axis) * (1 - weight) + result.take(high, axis) * weight
    return result


@pytest.mark.parametrize("size", [(7, 5), (16, 16), (20, 33), (40, 20), (13, 90), (1, 1)])
def test_resize_is_bilinear_without_antialias_at_half_pixel_centres(size):
    image = np.random.default_rng(0).integers(0, 256, (20, 33, 3), np.uint8)
    result = resize(image, size)
    assert result.shape == (*size, 3)
    assert result.dtype == np.uint8
    assert np.abs(result - resize_reference(image, size)).max() <= 1.0


def test_inception_boxes_stay_inside_and_within_area_and_aspect():
    rng = np.random.default_rng(0)
    boxes = np.array([sample_box(300, 400, rng, (0.05, 1.0), (3 / 4, 4 / 3)) for _ in range(3000)])
    top, left, h, w = boxes.T
    assert top.min() >= 0
    assert left.min() >= 0
    assert (top + h).max() == 300  # the last row and column are reached
    assert (left + w).max() == 400
    share = h * w / (300 * 400)
    assert share.min() >= 0.05
    assert share.min() < 0.06
    assert share.max() > 0.9
    assert np.all(np.abs(w - h * 3 / 4).clip(0.5) >= 0.5)
    assert np.all((w >= h * 3 / 4 - 0.5) & (w <= h * 4 / 3 + 0.5))


def test_inception_boxes_are_uniform_in_side_and_aspect_as_tensorflow_draws_them():
    # No box is clipped here, so the side sqrt(h w) is uniform in [80, 160]: the mean share is
    # (80^2 + 80 * 160 + 160^2) / 3 / 400^2 = 0.0933 (0.10 were it uniform in area, as torchvision does), and the mean
    # aspect is (3/4 + 4/3) / 2 = 1.0417 (1.0139 were it uniform in its logarithm).
    rng = np.random.default_rng(0)
    boxes = np.array([sample_box(400, 400, rng, (0.04, 0.16), (3 / 4, 4 / 3)) for _ in range(4000)])
    assert (boxes[:, 2] * boxes[:, 3]).mean() / 400**2 == pytest.approx(0.0933, abs=0.002)
    assert (boxes[:, 3] / boxes[:, 2]).mean() == pytest.approx(1.0417, abs=0.01)


def test_inception_boxes_reach_the_last_row_and_column_of_a_tiny_image():
    rng = np.random.default_rng(0)
    boxes = [sample_box(8, 8, rng, (0.5, 0.8), (0.9, 1.1)) for _ in range(300)]
    assert all(h < 8 and w < 8 for _, _, h, w in boxes)
    assert {top + h for top, _, h, _ in boxes} >= {7, 8}
    assert max(left + w for _, left, _, w in boxes) == 8


def test_inception_boxes_of_a_narrow_image_do_not_prefer_tall_ones():
    # The height is drawn below what the width allows; drawing it freely and discarding would favour small aspects.
    rng = np.random.default_rng(0)
    boxes = np.array([sample_box(2000, 200, rng, (0.01, 1.0), (3 / 4, 4 / 3)) for _ in range(4000)])
    assert (boxes[:, 3] / boxes[:, 2]).mean() == pytest.approx(1.0417, abs=0.01)


def test_inception_boxes_that_rounding_pushed_out_of_range_move_by_one_pixel():
    class Extreme:
        """A generator that draws aspect 1, the least or largest height, and offset 0."""

        def __init__(self, largest):
            self.largest = largest

        def uniform(self, low, high):
            return 1.0

        def integers(self, low, high=None):
            return 0 if high is None else (high - 1 if self.largest else low)

    # Of 100 pixels at least 12: sqrt(12) rounds to 3, but 3 x 3 is too small.
    assert sample_box(10, 10, Extreme(largest=False), (0.12, 1.0), (3 / 4, 4 / 3)) == (0, 0, 4, 4)
    # At most 13: sqrt(13) rounds to 4, but 4 x 4 is too large.
    assert sample_box(10, 10, Extreme(largest=True), (0.09, 0.13), (3 / 4, 4 / 3)) == (0, 0, 3, 3)


def test_inception_crop_takes_the_whole_image_when_no_box_fits():
    assert sample_box(10, 1000, np.random.default_rng(0), (0.9, 1.0), (3 / 4, 4 / 3)) == (0, 0, 10, 1000)


def test_inception_crop_resizes_the_box_it_drew():
    image = np.random.default_rng(3).integers(0, 256, (50, 70, 3), np.uint8)
    top, left, h, w = sample_box(50, 70, np.random.default_rng(5), (0.2, 0.5), (3 / 4, 4 / 3))
    transform = make_transform("pretrain", (24, 16), crop_area=(0.2, 0.5), flip=False)
    result = transform.map_image(image, np.random.default_rng(5))
    assert np.abs(result - resize_reference(image[top : top + h, left : left + w], (24, 16))).max() <= 1.0


def test_random_crop_takes_every_position_equally_often():
    image = np.arange(9, dtype=np.uint8).reshape(3, 3, 1).repeat(3, 2)
    rng = np.random.default_rng(0)
    corners = [int(cut(image, random_box(image, rng, (2, 2)))[0, 0, 0]) for _ in range(2000)]
    counts = [corners.count(value) for value in (0, 1, 3, 4)]
    assert sum(counts) == 2000
    assert min(counts) > 430  # 500 expected, standard deviation 19


def test_central_crop_takes_the_middle():
    image = np.arange(25, dtype=np.uint8).reshape(5, 5, 1).repeat(3, 2)
    assert cut(image, central_box(image, (3, 1)))[..., 0].tolist() == [[7], [12], [17]]
    assert cut(image, central_box(image, (2, 2)))[..., 0].tolist() == [[6, 7], [11, 12]]


def test_crops_larger_than_the_image_are_refused():
    with pytest.raises(ValueError, match="cannot crop 6 x 2 from an image of 5 x 5"):
        central_box(np.zeros((5, 5, 3), np.uint8), (6, 2))
    with pytest.raises(ValueError, match="cannot crop"):
        random_box(np.zeros((5, 5, 3), np.uint8), np.random.default_rng(0), (5, 6))


def test_flip_mirrors_left_and_right_half_of_the_time():
    image = np.array([[[1] * 3, [2] * 3, [3] * 3]], np.uint8)
    rng = np.random.default_rng(0)
    transform = make_transform("resize_flip", (1, 3))
    rows = [transform.map_image(image, rng)[0, :, 0].tolist() for _ in range(1000)]
    assert 440 < rows.count([3, 2, 1]) < 560
    assert rows.count([1, 2, 3]) + rows.count([3, 2, 1]) == 1000


def test_flip_in_place_is_the_mirror_image_at_every_width():
    rng = np.random.default_rng(0)
    for width in [*range(1, 70), 224, 225]:
        image = rng.integers(0, 256, (5, width, 3), np.uint8)
        place = image.copy()
        assert flip(place, place) is place
        assert np.array_equal(place, image[:, ::-1])
