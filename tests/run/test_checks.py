"""Mistakes that show only beside the data: each is one message with the way out."""

import pytest
from ml_collections import ConfigDict

from vit_jax.config import Config
from vit_jax.run.checks import check_best, check_classes, check_target
from vit_jax.targets import Boxes, ClassId, ClassSet, Values
from vit_jax.train.objectives import OBJECTIVES, Objective
from vit_jax.types import DatasetSpec, UserError


def config(**sections):
    """A config with the sections that these checks read."""
    plain = {
        "model": {"name": "vit", "num_classes": 10},
        "objective": {"name": "softmax"},
        "checkpoint": {"best_metric": "", "keep_best": 0},
        "train": {"patience": 0},
        "evals": {"test": {"name": "classification"}},
    }
    return Config(ConfigDict({**plain, **sections}).to_dict())


def spec(target):
    return DatasetSpec(name="mine", split="train", num_examples=4, target=target, image_shape=(8, 8, 3), class_names=())


@pytest.mark.parametrize(
    ("name", "target", "words"),
    [
        ("softmax", Boxes(3, 2), "reads a class for each image, and mine has boxes"),
        ("regression", ClassId(3), "reads numbers, and mine has a class for each image"),
        ("detection", ClassId(3), "reads boxes, and mine has a class for each image"),
    ],
)
def test_labels_of_another_kind_than_the_loss_reads_are_refused(name, target, words):
    with pytest.raises(UserError, match=words):
        check_target(config(objective={"name": name}), OBJECTIVES[name](), spec(target))


def test_labels_that_the_loss_reads_pass():
    check_target(config(), OBJECTIVES["softmax"](), spec(ClassId(3)))
    for target in (ClassId(3), ClassSet(3)):
        check_target(config(), OBJECTIVES["sigmoid"](), spec(target))
    for target in (ClassId(3), ClassSet(3), Values(("age",))):  # a user's own loss says nothing
        check_target(config(), Objective(lambda outputs, batch: {}), spec(target))
    check_target(config(), OBJECTIVES["regression"](), spec(Values(("age",))))


def test_a_head_smaller_than_the_data_is_refused_and_a_larger_one_passes():
    with pytest.raises(UserError, match="num_classes is 10, but mine has 11"):
        check_classes(config(), spec(ClassId(11)))
    check_classes(config(), spec(ClassId(9)))


def test_a_best_metric_that_nothing_measures_is_refused_with_those_there_are():
    with pytest.raises(UserError, match="expected one of eval/test/METRIC, eval_average/test/METRIC"):
        check_best(config(checkpoint={"best_metric": "eval/dev/top1", "keep_best": 1}))
    check_best(config(checkpoint={"best_metric": "eval/test/top1", "keep_best": 1}))


def test_patience_without_a_metric_to_wait_for_is_refused():
    with pytest.raises(UserError, match=r"train.patience=3 waits for a better checkpoint.best_metric"):
        check_best(config(train={"patience": 3}))
