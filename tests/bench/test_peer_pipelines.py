"""The other libraries' pipelines, as far as they need none of them: their photographs and their crops."""

import random

import numpy as np
import pytest

from vit_jax.bench.peer_pipelines import inception_box, list_photographs


def test_photographs_are_listed_by_path_with_the_number_of_their_folder(tmp_path):
    for name in ("train/1/a.jpg", "train/0/b.jpg", "train/10/c.jpg", "train/0/a.jpg", "train/0/a.txt", "test/0/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    paths, labels = list_photographs(str(tmp_path))
    assert [path.removeprefix(f"{tmp_path}/train/") for path in paths] == ["0/a.jpg", "0/b.jpg", "1/a.jpg", "10/c.jpg"]
    assert labels == [0, 0, 1, 10]


@pytest.fixture(autouse=True)
def seeded():
    state = random.getstate()
    random.seed(5)
    yield
    random.setstate(state)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (40, 40)])
def test_a_crop_lies_in_the_image_and_has_the_areas_and_shapes_of_inceptions(height, width):
    boxes = np.array([inception_box(height, width) for _ in range(2000)])
    left, top, right, bottom = boxes.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= width).all()
    assert (bottom <= height).all()
    w, h = right - left, bottom - top
    # Sides are whole pixels, which moves the ratio of the smallest boxes.
    assert ((w + 1) / (h - 1) > 3 / 4).all()
    assert ((w - 1) / (h + 1) < 4 / 3).all()
    assert (w / h).min() < 0.8
    assert (w / h).max() > 1.25
    area = w * h / (width * height)
    assert (area >= 0.05).all()
    assert area.max() > 0.6
    assert (area < 0.1).mean() > 0.05  # and small ones are drawn: their height is uniform, not their area
    # Every place of a box is as likely as any other: on average it lies in the middle.
    assert abs((left + right).mean() / width - 1) < 0.03
    assert abs((top + bottom).mean() / height - 1) < 0.03


def test_an_image_in_which_no_crop_fits_is_taken_whole():
    assert inception_box(4, 1000) == (0, 0, 1000, 4)
