"""Recipes: the effect of each on a picture, and its description in checkpoints."""

import json
import pickle

import numpy as np
import pytest

from vit_jax.data.image.augment import Augment
from vit_jax.data.image.crops import resize, resize_small
from vit_jax.data.image.recipes import describe_transform, make_transform
from vit_jax.types import UserError

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


def rng():
    return np.random.default_rng(11)


@pytest.mark.parametrize("recipe", ["pretrain", "finetune", "eval", "fewshot"])
def test_every_recipe_gives_contiguous_uint8_of_the_resolution_and_survives_pickling(recipe):
    transform = pickle.loads(pickle.dumps(make_transform(recipe, (24, 32))))
    result = transform.map_image(IMAGE, rng())
    assert result.shape == (24, 32, 3)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert np.array_equal(result, make_transform(recipe, (24, 32)).map_image(IMAGE, rng()))


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"randaugment": (2, 10)},
        {"auto_augment": "rand-m9-mstd0.5-inc1"},
        {"color_jitter": 0.4},
        {"random_erasing": 1.0},
    ],
)
def test_a_place_for_the_result_changes_nothing(extra):
    image = np.random.default_rng(0).integers(0, 256, (60, 83, 3), np.uint8)
    transform, before = make_transform("pretrain", (33, 45), augment=Augment(**extra)), image.copy()
    for seed in range(20):
        expected = transform.map_image(image, np.random.default_rng(seed))
        place = np.zeros((33, 45, 3), np.uint8)
        found = transform.map_image(image, np.random.default_rng(seed), place)
        assert np.array_equal(found, expected)
        assert extra or found is place
    assert np.array_equal(image, before)


def test_eval_is_one_squash_resize():
    assert np.array_equal(make_transform("eval", (24, 32)).map_image(IMAGE, rng()), resize(IMAGE, (24, 32)))


def test_fewshot_is_256_then_the_central_224():
    expected = resize(IMAGE, (256, 256))[16:240, 16:240]
    assert np.array_equal(make_transform("fewshot", (224, 224)).map_image(IMAGE, rng()), expected)


def test_finetune_is_448_then_a_random_384():
    transform = make_transform("finetune", (384, 384), flip=False)
    generator = rng()
    top, left = int(generator.integers(65)), int(generator.integers(65))
    expected = resize(IMAGE, (448, 448))[top : top + 384, left : left + 384]
    assert np.array_equal(transform.map_image(IMAGE, rng()), expected)


def test_finetune_small_keeps_the_aspect():
    # 60 x 90 to 448 x 672, then a random 384 of it.
    generator = rng()
    top, left = int(generator.integers(448 - 384 + 1)), int(generator.integers(672 - 384 + 1))
    expected = resize_small(IMAGE, (448, 448))[top : top + 384, left : left + 384]
    assert np.array_equal(make_transform("finetune_small", (384, 384), flip=False).map_image(IMAGE, rng()), expected)


def test_pretrain_crops_a_share_of_crop_area():
    whole = make_transform("pretrain", (20, 30), crop_area=(1.0, 1.0), flip=False)
    square = IMAGE[:60, :60]
    tight = make_transform("pretrain", (20, 20), crop_area=(0.04, 0.05), flip=False)
    ramp = np.broadcast_to(np.arange(0, 240, 4, dtype=np.uint8)[:, None, None], (60, 60, 3))
    assert np.ptp(tight.map_image(ramp, rng())) <= 4 * 60 * np.sqrt(0.05 * 4 / 3) + 8
    assert whole.map_image(square, rng()).shape == (20, 30, 3)


@pytest.mark.parametrize("recipe", ["pretrain", "finetune"])
def test_flip_can_be_turned_off(recipe):
    half = np.zeros((64, 64, 3), np.uint8)
    half[:, 32:] = 200  # the right half is bright
    right = {True: 0, False: 0}
    for flip in right:
        transform = make_transform(recipe, (32, 32), crop_area=(1.0, 1.0), flip=flip)
        for seed in range(40):
            image = transform.map_image(half, np.random.default_rng(seed)).astype(int)
            right[flip] += image[:, 16:].sum() > image[:, :16].sum()
    assert right[False] == 40
    assert 10 < right[True] < 30


def test_eval_and_fewshot_do_not_depend_on_the_generator():
    for recipe in ("eval", "fewshot"):
        transform = make_transform(recipe, (16, 16))
        first, second = (transform.map_image(IMAGE, np.random.default_rng(seed)) for seed in (1, 2))
        assert np.array_equal(first, second)


def test_description_is_json_and_names_what_a_reader_needs():
    found = json.loads(json.dumps(describe_transform(make_transform("pretrain", (224, 160), flip=False))))
    assert found["recipe"] == "pretrain"
    assert found["resolution"] == [224, 160]
    assert found["crop_area"] == [0.05, 1.0]
    assert found["flip"] is False
    assert (found["kernel"], found["antialias"], found["corner_rule"]) == ("bilinear", False, "half-pixel centers")
    assert (found["value_range"], found["normalized_range"]) == ([0, 255], [-1.0, 1.0])
    assert describe_transform(make_transform("fewshot", (224, 224)))["resized_to"] == [256, 256]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pretrian", (8, 8)), "did you mean 'pretrain'"),
        (("eval", (8,)), "two positive integers"),
        (("eval", (0, 8)), "two positive integers"),
        (("eval", (8.5, 8)), "two positive integers"),
    ],
)
def test_impossible_recipes_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        make_transform(*arguments)


def test_impossible_crop_area_is_refused():
    with pytest.raises(UserError, match="crop_area"):
        make_transform("pretrain", (8, 8), crop_area=(0.5, 0.2))
