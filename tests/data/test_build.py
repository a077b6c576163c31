"""The data section: what it refuses, and what a user adds to it from outside."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from vit_jax.data.build import TrainData
from vit_jax.data.image.recipes import RECIPES, Recipe, describe_transform, make_transform
from vit_jax.data.image.steps import Pixels, RandomCrop, Resize, Step
from vit_jax.data.source import Source
from vit_jax.targets import Boxes, ClassId
from vit_jax.types import DatasetSpec, UserError


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
        make_transform("negative", (3, 3), target=Boxes(9, most=4))


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


def test_sizes_beyond_the_resolution_are_refused_and_turned_ones_pass():
    given = {"dataset": "d", "split": "train", "resolution": (32, 48), "batch_size": 1, "recipe": "eval"}
    data = TrainData(**given, sizes=((48, 32), (16, 16), (32, 48)))
    assert [data.transform(Two(), size).resolution for size in data.sizes] == [(48, 32), (16, 16), (32, 48)]
    assert data.transform(Two()).resolution == (32, 48)
    with pytest.raises(
        UserError, match=r"of up to 1,568 pixels, and data.resolution, 32x48, has 1,536: .*raise data.res"
    ):
        TrainData(**given, sizes=((16, 16), (49, 32)))
    with pytest.raises(UserError, match=r"data.sizes is \(\(0, 16\),\); expected \(h, w\) in pixels"):
        TrainData(**given, sizes=((0, 16),))


def test_an_unknown_recipe_and_strengths_out_of_range_are_refused_by_the_section():
    given = {"dataset": "d", "split": "train", "resolution": (4, 4), "batch_size": 1}
    with pytest.raises(
        UserError, match=r"data\.recipe must be one of pretrain, .*found 'pretrian'; did you mean 'pretrain'"
    ):
        TrainData(**given, recipe="pretrian")
    with pytest.raises(UserError, match=r"data\.color_jitter is 2; expected 0 to 1"):
        TrainData(**given, recipe="eval", color_jitter=2)
