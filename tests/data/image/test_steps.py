"""Steps of recipes: boxes follow their pixels, and steps that cannot carry boxes are refused."""

import numpy as np
import pytest
from box_labels import label

from vit_jax.data.image.augment import Augment
from vit_jax.data.image.recipes import RECIPES, make_transform
from vit_jax.data.image.steps import Example
from vit_jax.targets import Boxes, ClassId
from vit_jax.types import UserError

BOXES = Boxes(9, most=4)
DARK, BRIGHT = 60, 240  # the grey of padding, 128, is nearer to dark


def painted(h, w, left, top, right, bottom):
    """A dark picture with a bright rectangle, and the label of it; corners in pixels."""
    image = np.full((h, w, 3), DARK, np.uint8)
    image[top:bottom, left:right] = BRIGHT
    return Example(image, label([left / w, top / h, right / w, bottom / h]), (h, w))


def extent(image):
    """(left, top, right, bottom) of what is bright, in pixels."""
    ys, xs = np.nonzero(image[..., 0] > (DARK + BRIGHT) / 2)
    return xs.min(), ys.min(), xs.max() + 1, ys.max() + 1


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_a_box_stays_around_its_pixels(recipe):
    h, w = 48, 40
    transform = make_transform(recipe, (h, w), target=BOXES, crop_area=(0.3, 1.0))
    seen = 0
    for seed in range(30):
        example = painted(96, 120, 40, 20, 90, 70)
        done = transform(example, np.random.default_rng(seed))
        assert done.image.shape == (h, w, 3)
        assert done.target.size == (96, 120)
        assert np.array_equal(transform.map_image(example.image, np.random.default_rng(seed)), done.image)
        (left, top, right, bottom), bright = done.target.box[0], done.image[..., 0] > (DARK + BRIGHT) / 2
        assert 0 <= left <= right <= 1
        assert 0 <= top <= bottom <= 1
        if not done.target.valid[0]:
            assert bright.sum() <= w + h  # a row or column at most, from interpolation at the edge
            continue
        if min((right - left) * w, (bottom - top) * h) > 2:
            seen += 1
            assert np.abs(np.array(extent(done.image)) - [left * w, top * h, right * w, bottom * h]).max() <= 1.5
    assert seen > 15


def test_a_class_passes_untouched():
    transform = make_transform("pretrain", (8, 8), augment=Augment(randaugment=(2, 10), random_erasing=0.5))
    marker = object()
    done = transform(Example(np.zeros((16, 12, 3), np.uint8), marker, (16, 12)), np.random.default_rng(0))
    assert done.target is marker
    assert done.size == (16, 12)


@pytest.mark.parametrize(
    ("strengths", "named"),
    [
        ({"randaugment": (2, 10)}, "rand_augment"),
        ({"random_erasing": 0.1}, "random_erasing"),
        ({"color_jitter": 0.1}, ""),
    ],
)
def test_data_with_boxes_refuses_steps_that_would_belie_them(strengths, named):
    options = {"augment": Augment(**strengths)}
    make_transform("pretrain", (8, 8), target=ClassId(3), **options)
    if not named:
        make_transform("pretrain", (8, 8), target=BOXES, **options)
        return
    with pytest.raises(UserError, match=f"recipe pretrain: the data has boxes, which {named} cannot carry along"):
        make_transform("pretrain", (8, 8), target=BOXES, **options)
