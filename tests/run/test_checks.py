"""Mistakes that show only beside the data: each is one message with the way out."""

import pytest
from ml_collections import ConfigDict

from vit_jax import config as configs
from vit_jax.config import Config
from vit_jax.models.build import abstract_params
from vit_jax.resolve import resolve
from vit_jax.run.assemble import build_model
from vit_jax.run.checks import check_best, check_classes, check_sizes, check_target
from vit_jax.run.job import stand_in
from vit_jax.run.schema import SCHEMA
from vit_jax.run.settle import Facts, settle
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


QUICKSTART = "configs/quickstart.py:pretrain,smoke"  # 16x16 pixels, patches of 4
ONE_GRID = r"config.model.name=vit has parameters for one grid of patches, {}; .*model.positions=sincos_2d"


def checked(spec, **changes):
    """Checks the sizes of a config; no part of a run is built but the model."""
    pairs = {"model.num_classes": "10", "model.depth": "1"} | {k.replace("__", "."): v for k, v in changes.items()}
    config, _ = settle(resolve(configs.load(spec), SCHEMA, list(pairs.items())), Facts("cpu", 10))
    model = build_model(config)
    check_sizes(config, model, abstract_params(model, config.data.resolution))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data__sizes": "((12,12),(16,16))"}, ONE_GRID.format("4x4")),
        # As many patches, in another place.
        ({"data__sizes": "((16,8),)", "data__resolution": "(8,16)"}, ONE_GRID.format("2x4")),
        (
            {"data__sizes": "((16,8),)", "data__resolution": "(8,16)", "model__positions": "learned_2d"},
            ONE_GRID.format("2x4"),
        ),
        (
            {"data__sizes": "((12,14),(16,16),(3,8))", "model__positions": "sincos_2d"},
            "data.sizes: 12x14 is not divisible by the patch, and 12x12 is\ndata.sizes: 3x8 is not .* 4x8 is",
        ),
    ],
)
def test_sizes_that_a_classifier_cannot_take_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        checked(QUICKSTART, **changes)


def test_models_for_any_size_take_several_and_losses_of_hidden_patches_do_not():
    checked(QUICKSTART, model__positions="sincos_2d", data__sizes="((12,12),(16,16))")
    small = {"model__width": "16", "model__mlp_dim": "16", "model__num_heads": "1"}
    detector = "configs/detection.py:variant=Ti/16,dataset=coco,sizes"
    checked(detector, **small)
    with pytest.raises(UserError, match=r"config.model.name=yolos has parameters for one grid of patches, 32x54"):
        checked(detector, **small, model__position_grid="(0,0)")
    with pytest.raises(UserError, match=r"objective.name=simmim hides patches of one grid; leave data.sizes out"):
        checked("configs/masked.py:objective=simmim,variant=S/16,dataset=digits,smoke", data__sizes="((16,16),)")


def test_a_plan_refuses_what_a_run_would():
    with pytest.raises(UserError, match=ONE_GRID.format("4x4")):
        stand_in(configs.load(QUICKSTART), [("data.sizes", "12,16")], num_classes=10)
