"""Boxes of a label under a crop and a flip."""

import numpy as np
import pytest
from box_labels import label

from vit_jax.data.image.boxes import to_stored_pixels
from vit_jax.data.image.recipes import make_transform
from vit_jax.data.image.steps import CentralCrop, Example, Fit, Flip, RandomPart, View
from vit_jax.targets import Boxes


def test_a_box_is_clipped_by_a_crop_and_does_not_count_outside_it():
    view = make_transform("eval", (4, 4))
    image = np.zeros((8, 8, 3), np.uint8)  # the middle 4 x 4 is pixels 2 to 6
    target = label([0.5, 0.5, 1, 1], [0, 0, 0.25, 0.25], [0.25, 0.25, 0.75, 0.75], [0.75, 0, 1, 1])
    done = CentralCrop()(Example(image, target, (8, 8)), np.random.default_rng(0), view).target
    assert done.box.tolist() == [[0.5, 0.5, 1, 1], [0, 0, 0, 0], [0, 0, 1, 1], [1, 0, 1, 1]]
    assert done.valid.tolist() == [1, 0, 1, 0]
    assert (done.kind.tolist(), done.image_id) == ([0, 1, 2, 3], 7)


def test_a_mirrored_box_exchanges_left_and_right():
    view = make_transform("eval", (4, 4))
    flips = [seed for seed in range(9) if np.random.default_rng(seed).random() < 0.5]
    example = Example(np.zeros((4, 4, 3), np.uint8), label([0.125, 0, 0.5, 0.25]), (4, 4))
    assert Flip()(example, np.random.default_rng(flips[0]), view).target.box.tolist() == [[0.5, 0, 0.875, 0.25]]


@pytest.mark.parametrize("shape", [(1, 1000), (1000, 1), (1, 1), (30, 40)])
def test_detections_recipes_take_images_of_any_shape_and_their_boxes_are_mapped_back(shape):
    h, w = shape
    target = label([0.25, 0.0, 0.75, 1.0])
    for recipe in ("detect", "detect_fit", "detect_eval", "eval"):
        transform = make_transform(recipe, (64, 96), target=Boxes(1, 1))
        done = transform(Example(np.zeros((h, w, 3), np.uint8), target, shape), np.random.default_rng(0))
        assert done.image.shape == (64, 96, 3)
        assert np.isfinite(done.target.box).all()
        if recipe in ("detect_eval", "eval"):
            back = to_stored_pixels(done.target.box[None], np.array([shape]), (64, 96), padded=recipe == "detect_eval")
            np.testing.assert_allclose(back[0, 0], [0.25 * w, 0, 0.75 * w, h], rtol=1e-5)


def test_a_fitted_image_keeps_its_aspect_and_the_rest_is_grey():
    view = View(resolution=(32, 32))
    image = np.full((16, 32, 3), 255, np.uint8)
    done = Fit()(Example(image, label([0, 0, 1, 1]), (16, 32)), np.random.default_rng(0), view)
    assert (done.image[:16] == 255).all()
    assert (done.image[16:] == 128).all()
    assert done.target.box.tolist() == [[0, 0, 1, 0.5]]
    smaller = Fit(0.5)(Example(image, label([0, 0, 1, 1]), (16, 32)), np.random.default_rng(0), view)
    scale = np.random.default_rng(0).uniform(0.5, 1.0)
    np.testing.assert_allclose(smaller.target.box, [[0, 0, scale, scale / 2]], rtol=1e-6)


def test_a_random_part_keeps_three_fifths_of_each_side_of_every_other_image():
    view, image = View(resolution=(8, 8)), np.zeros((50, 100, 3), np.uint8)
    made = [
        RandomPart()(Example(image, None, (50, 100)), np.random.default_rng(seed), view).image for seed in range(300)
    ]
    cut = [part.shape[:2] for part in made if part.shape[:2] != (50, 100)]
    assert 120 < len(cut) < 180
    assert (min(h for h, _ in cut), min(w for _, w in cut)) >= (30, 60)
    assert len(set(cut)) > 80
