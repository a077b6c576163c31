"""Boxes of a label under a crop and a flip."""

import numpy as np
from box_labels import label

from vit_jax.data.image.recipes import make_transform
from vit_jax.data.image.steps import CentralCrop, Example, Flip


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
