"""Steps of recipes: boxes follow their pixels, and what users add from outside."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from vit_jax.data.build import TrainData
from vit_jax.data.image.augment import Augment
from vit_jax.data.image.recipes import RECIPES, Recipe, describe_transform, make_transform
from vit_jax.data.image.steps import CentralCrop, Example, Flip, Pixels, RandomCrop, Resize, Step
from vit_jax.data.source import Source
from vit_jax.targets import Boxes, BoxLabel, ClassId
from vit_jax.types import DatasetSpec, UserError

BOXES = Boxes(9, most=4)
DARK, BRIGHT = 20, 220


def label(*corners):
    box = np.array(corners, np.float32).reshape(-1, 4)
    return BoxLabel(box, np.arange(len(box), dtype=np.int32), np.ones(len(box), np.float32), 7)


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
        (left, top, right, bottom), bright = done.target.box[0], done.image[..., 0] > 120
        assert 0 <= left <= right <= 1
        assert 0 <= top <= bottom <= 1
        if not done.target.valid[0]:
            assert bright.sum() <= w + h  # a row or column at most, from interpolation at the edge
            continue
        if min((right - left) * w, (bottom - top) * h) > 2:
            seen += 1
            assert np.abs(np.array(extent(done.image)) - [left * w, top * h, right * w, bottom * h]).max() <= 1.5
    assert seen > 15


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


class Invert(Step):
    """A step of a user's own."""

    def __call__(self, example, rng, view, out=None):
        return example._replace(image=255 - example.image)

    def describe(self, view):
        return {"inverted": True}


def test_a_recipe_from_outside_is_one_entry(monkeypatch):
    monkeypatch.setitem(RECIPES, "negative", Recipe((Resize(2.0), RandomCrop(), Invert()), "a test"))
    image = np.full((5, 5, 3), 55, np.uint8)
    data = TrainData(dataset="d", split="train", resolution=(3, 3), batch_size=1, recipe="negative")
    transform = pickle.loads(pickle.dumps(data.transform(Two())))
    assert (transform.map_image(image, np.random.default_rng(0)) == 200).all()
    found = describe_transform(transform)
    assert (found["resized_to"], found["crop"], found["inverted"], found["source"]) == (
        [6, 6],
        "random",
        True,
        "a test",
    )
    with pytest.raises(UserError, match="boxes, which Invert cannot carry along"):
        make_transform("negative", (3, 3), target=BOXES)


class Two(Source):
    """No more than a spec."""

    spec = DatasetSpec("two", "train", 2, ClassId(2), (), (None, None, 3))


def darken(image, rng, share):
    return (image * (1 - share)).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class DimmedData(TrainData):
    """Training data with a strength of a user's own: one field, and one line that applies it."""

    darken: float = 0.0

    def steps(self):
        return (*super().steps(), *([Pixels(darken, (self.darken,), carries_boxes=True)] if self.darken else []))


def test_a_strength_from_outside_is_a_field_and_a_line():
    given = {"dataset": "d", "split": "train", "resolution": (4, 4), "batch_size": 1, "recipe": "eval"}
    image, rng = np.full((8, 8, 3), 200, np.uint8), np.random.default_rng(0)
    plain, dimmed = (DimmedData(**given, **extra).transform(Two()) for extra in ({}, {"darken": 0.75}))
    assert (plain.map_image(image, rng) == 200).all()
    assert (dimmed.map_image(image, rng) == 50).all()
    assert len(dimmed.steps) == len(plain.steps) + 1


def test_an_unknown_recipe_and_strengths_out_of_range_are_refused_by_the_section():
    given = {"dataset": "d", "split": "train", "resolution": (4, 4), "batch_size": 1}
    with pytest.raises(
        UserError, match=r"data\.recipe must be one of pretrain, .*found 'pretrian'; did you mean 'pretrain'"
    ):
        TrainData(**given, recipe="pretrian")
    with pytest.raises(UserError, match=r"data\.color_jitter is 2; expected 0 to 1"):
        TrainData(**given, recipe="eval", color_jitter=2)
