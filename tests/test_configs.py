"""The configs against the paper's tables, copied here, and every documented argument of every config."""

import ast
import functools
import re
import runpy
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from flax.traverse_util import flatten_dict

from vit_jax import config as configs
from vit_jax.data.image.recipes import describe_transform, make_transform
from vit_jax.data.vtab import tasks as vtab
from vit_jax.models.build import MODELS, abstract_params, count_params
from vit_jax.resolve import resolve
from vit_jax.run.assemble import build_model, grid_of
from vit_jax.run.job import stand_in
from vit_jax.run.schema import SCHEMA
from vit_jax.run.settle import Facts, settle
from vit_jax.sweeps.grid import load_grid, probe_config
from vit_jax.types import UserError

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "configs").glob("*.py"))

# Table 3: variant, data set, epochs, base LR, decay, weight decay, dropout. Adam 0.9, 0.999; batch 4096; warm-up 10k; 224.
TABLE_3 = [
    ("B/16", "jft", (7,), 8e-4, "linear", 0.1, 0.0),
    ("B/32", "jft", (7,), 8e-4, "linear", 0.1, 0.0),
    ("L/32", "jft", (7,), 6e-4, "linear", 0.1, 0.0),
    ("L/16", "jft", (7, 14), 4e-4, "linear", 0.1, 0.0),
    ("H/14", "jft", (14,), 3e-4, "linear", 0.1, 0.0),
    ("R50x1", "jft", (7,), 1e-3, "linear", 0.1, 0.0),
    ("R50x2", "jft", (7,), 1e-3, "linear", 0.1, 0.0),
    ("R101x1", "jft", (7,), 8e-4, "linear", 0.1, 0.0),
    ("R152x1", "jft", (7,), 6e-4, "linear", 0.1, 0.0),
    ("R152x2", "jft", (7,), 6e-4, "linear", 0.1, 0.0),
    ("R200x3", "jft", (14,), 6e-4, "linear", 0.1, 0.0),  # of table 6
    ("R50+B/16", "jft", (7,), 8e-4, "linear", 0.1, 0.0),
    ("R50+B/32", "jft", (7,), 8e-4, "linear", 0.1, 0.0),
    ("R50+L/32", "jft", (7,), 2e-4, "linear", 0.1, 0.0),
    ("R50+L/16", "jft", (7, 14), 4e-4, "linear", 0.1, 0.0),
    ("B/16", "imagenet21k", (90,), 1e-3, "linear", 0.03, 0.1),
    ("B/32", "imagenet21k", (90,), 1e-3, "linear", 0.03, 0.1),
    ("L/16", "imagenet21k", (30, 90), 1e-3, "linear", 0.03, 0.1),
    ("L/32", "imagenet21k", (30, 90), 1e-3, "linear", 0.03, 0.1),
    *[
        (variant, "imagenet2012", (300,), 3e-3, "cosine", 0.3, 0.1)
        for variant in ("Ti/16", "S/16", "S/32", "B/16", "B/32", "L/16", "L/32", "H/14")
    ],
]
ROWS_3 = {row[:2]: row[2:] for row in TABLE_3}
CLASSES = {"jft": 18291, "imagenet21k": 21843, "imagenet2012": 1000}

# Table 4: steps, base LRs swept, share of the training set held out for development (percent).
TABLE_4 = {
    "imagenet2012": (20_000, (0.003, 0.01, 0.03, 0.06), 1),
    "cifar100": (10_000, (0.001, 0.003, 0.01, 0.03), 2),
    "cifar10": (10_000, (0.001, 0.003, 0.01, 0.03), 2),
    "oxford_iiit_pet": (500, (0.001, 0.003, 0.01, 0.03), 10),
    "oxford_flowers102": (500, (0.001, 0.003, 0.01, 0.03), 10),
}

# VTAB-1k: data set, the 800 + 200 training examples, the test split, and how training may change an image
# (recipe, flip): the transfers of arXiv 2106.04560.
VTAB = {
    "caltech101": ("caltech101", "train[:800]", "train[2754:2954]", "test"),
    "cifar100": ("cifar100", "train[:800]", "train[45000:45200]", "test"),
    "dtd": ("dtd", "train[:800]", "validation[:200]", "test"),
    "flowers102": ("oxford_flowers102", "train[:800]", "validation[:200]", "test"),
    "pets": ("oxford_iiit_pet", "train[:800]", "train[2944:3144]", "test"),
    "svhn": ("svhn_cropped", "train[:800]", "train[65931:66131]", "test"),
    "sun397": ("sun397/tfds", "train[:800]", "validation[:200]", "test"),
    "camelyon": ("patch_camelyon", "train[:800]", "validation[:200]", "test"),
    "eurosat": ("eurosat/rgb", "train[:800]", "train[16200:16400]", "train[21600:]"),
    "resisc45": ("resisc45", "train[:800]", "train[18900:19100]", "train[25200:]"),
    "retinopathy": ("diabetic_retinopathy_detection/btgraham-300", "train[:800]", "validation[:200]", "test"),
    "dmlab": ("dmlab", "train[:800]", "validation[:200]", "test"),
    "clevr_count": ("clevr", "train[:800]", "train[63000:63200]", "validation"),
    "clevr_dist": ("clevr", "train[:800]", "train[63000:63200]", "validation"),
    "dsprites_loc": ("dsprites", "train[:800]", "train[589824:590024]", "train[663552:]"),
    "dsprites_ori": ("dsprites", "train[:800]", "train[589824:590024]", "train[663552:]"),
    "kitti": ("kitti", "train[:800]", "validation[:200]", "test"),
    "smallnorb_azim": ("smallnorb", "train[:800]", "test[:200]", "test[50%:]"),
    "smallnorb_elev": ("smallnorb", "train[:800]", "test[:200]", "test[50%:]"),
}
NO_CROP = {"clevr_count", "clevr_dist", "dmlab", "kitti", "dsprites_loc"}
NO_FLIP = {"dsprites_loc", "dsprites_ori", "smallnorb_azim"}


def load(name, arguments=""):
    """A config, settled on a CPU without its data."""
    return settled(configs.load(f"{ROOT / 'configs' / name}.py:{arguments}"))


def settled(draft, overrides=(), num_classes=0):
    return settle(resolve(draft, SCHEMA, overrides), Facts("cpu", num_classes))[0]


def some(section, *keys):
    return tuple(section[key] for key in keys)


def steps_of(config, key, images=10**6):
    """A duration of a config in steps, on a data set of so many images."""
    per_epoch = images / config.data.batch_size
    total = configs.steps(config.train.duration, steps_per_epoch=per_epoch)
    return configs.steps(key(config), steps_per_epoch=per_epoch, total=total)


def params_of(config):
    """Parameters of a resolved config's model; 10 classes where it has the data's."""
    config = settle(config, Facts("cpu", 10))[0]
    return count_params(shapes_of(scanned(build_model(config)), config.data.resolution))


def scanned(model):
    """The model with its layers stacked where it has any: one is traced in place of all."""
    return model.clone(scan=True) if "scan" in vars(model) else model


shapes_of = functools.cache(abstract_params)  # many configs have a model in common


def docstring_of(name):
    return (ROOT / "configs" / f"{name}.py").read_text().split('"""')[1]


# Table 3


@pytest.mark.parametrize("row", TABLE_3, ids=lambda row: f"{row[0]} {row[1]}")
def test_pre_training_is_table_3(row):
    variant, dataset, epochs, lr, decay, weight_decay, dropout = row
    config = load("pretrain", f"variant={variant},dataset={dataset}")
    assert config.train.duration == f"{epochs[-1]} epochs"
    optim = some(config.optim, "name", "b1", "b2", "lr", "decay", "weight_decay", "clip_norm")
    assert optim == ("adam", 0.9, 0.999, lr, decay, weight_decay, 1.0 if dataset == "imagenet2012" else 0.0)
    assert steps_of(config, lambda c: c.optim.warmup) == 10_000
    assert config.data.batch_size == 4096
    assert config.data.resolution == (224, 224)
    assert config.data.recipe == "pretrain"
    if config.model.name == "vit":
        assert some(config.model, "dropout", "attention_dropout") == (dropout, 0.0)
        assert config.model.representation_size == config.model.width
        assert config.model.scan  # on this CPU
    assert config.optim.end_lr == 1e-5
    assert config.init.path == ""
    # One sigmoid per class, and a bias of -10, so that it starts from "nothing is there".
    assert (config.objective.name, config.model.head_bias) == ("sigmoid", -10.0)
    # The authors' ImageNet runs have targets of 1e-4 and 1 - 1e-4.
    assert config.objective.target_margin == (1e-4 if dataset == "imagenet2012" else 0.0)
    # Shorter side to 256, middle 224.
    evaluated = describe_transform(make_transform(config.evals.val.recipe, config.evals.val.resolution))
    assert (evaluated["resized_to"], evaluated["keep_aspect"], evaluated["crop"]) == ([256, 256], True, "central")
    assert config.model.num_classes == CLASSES[dataset]


@pytest.mark.parametrize(
    ("variant", "dataset", "choices"),
    [("L/16", "jft", (7, 14)), ("L/16", "imagenet21k", (30, 90)), ("R50+L/16", "jft", (7, 14))],
)
def test_a_row_with_two_lengths_offers_both_and_no_other(variant, dataset, choices):
    for epochs in choices:
        config = load("pretrain", f"variant={variant},dataset={dataset},epochs={epochs}")
        assert config.train.duration == f"{epochs} epochs"
    with pytest.raises(UserError, match=rf"epochs=8: table 3 has \({choices[0]}, {choices[1]}\)"):
        load("pretrain", f"variant={variant},dataset={dataset},epochs=8")


@pytest.mark.parametrize(
    ("variant", "near"),
    [
        *[("Ti/16", "B/16"), ("S/32", "B/16"), ("B/8", "B/16"), ("L/14", "L/16"), ("g/14", "H/14")],
        *[
            ("R26+B/32", "B/32"),
            ("R26+S/32", "B/16"),
            ("R+Ti/16", "B/16"),
            ("Mixer-B/32", "B/32"),
            ("Mixer-H/14", "H/14"),
        ],
        *[("R26x1", "R50x1"), ("R50x3", "R50x2"), ("R101x3", "R101x1"), ("R152x4", "R152x2")],
    ],
)
def test_variants_outside_table_3_train_by_a_row_of_it(variant, near):
    epochs, lr, decay, weight_decay, _ = ROWS_3[near, "jft"]
    config = load("pretrain", f"variant={variant},dataset=jft")
    assert some(config.optim, "lr", "decay", "weight_decay") == (lr, decay, weight_decay)
    assert config.train.duration == f"{epochs[-1]} epochs"


@pytest.mark.parametrize(
    ("variant", "near"),
    [("H/14", "L/16"), ("R50+B/16", "B/16"), ("R50+L/32", "L/32"), ("Mixer-L/16", "L/16"), ("R50x1", "L/16")],
)
def test_imagenet_21k_has_vits_rows_for_all(variant, near):
    epochs, lr, decay, weight_decay, dropout = ROWS_3[near, "imagenet21k"]
    config = load("pretrain", f"variant={variant},dataset=imagenet21k")
    assert some(config.optim, "lr", "decay", "weight_decay") == (lr, decay, weight_decay)
    assert config.train.duration == f"{epochs[-1]} epochs"
    assert config.model.get("dropout", dropout) == dropout


def test_few_shot_accuracy_on_imagenet_is_an_argument_away():
    assert set(load("pretrain", "dataset=imagenet21k").evals) == {"val"}
    check_five_shot(load("pretrain", "dataset=imagenet21k,fewshot"))


def check_five_shot(config):
    """The paper's running metric: 5-shot linear on ImageNet, from images with 30 and more of every class."""
    assert set(config.evals) == {"val", "fewshot"}
    section = config.evals.fewshot
    assert some(section, "name", "dataset", "shots") == ("fewshot", "imagenet2012", (5,))
    assert some(section, "train_split", "test_split") == ("train[:65000]", "validation")
    assert section.resolution == config.data.resolution


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_the_reassessed_labels_of_imagenet_are_an_argument_away(name):
    plain = load(name, "variant=B/16,dataset=imagenet2012")
    assert "real" not in plain.evals
    config = load(name, "variant=B/16,dataset=imagenet2012,real")
    assert set(config.evals) == {*plain.evals, "real"}
    section = config.evals.real
    assert some(section, "name", "dataset", "split") == ("scorecard", "imagenet2012_real", "validation")
    assert section.resolution == config.data.resolution
    assert section.recipe == {"pretrain": "eval_crop", "finetune": "eval"}[name]
    # Likelihood and calibration are of what the training objective makes of the scores.
    assert section.likelihood == config.objective.name == {"pretrain": "sigmoid", "finetune": "softmax"}[name]
    smoke = load(name, "variant=B/16,dataset=imagenet2012,real,smoke")
    assert some(smoke.evals.real, "name", "dataset") == ("scorecard", "digits")
    with pytest.raises(UserError, match="real scores the labels of ImageNet ReaL; with dataset=cifar10 leave it out"):
        load(name, "variant=B/16,dataset=cifar10,real")


def test_a_data_set_of_ones_own_pre_trains_with_softmax():
    config = load("pretrain", "variant=S/16,dataset=stanford_dogs")
    assert (config.objective.name, config.model.head_bias, config.model.num_classes) == ("softmax", 0.0, None)
    assert some(config.optim, "lr", "decay", "weight_decay", "clip_norm") == (3e-3, "cosine", 0.3, 1.0)


@pytest.mark.parametrize(
    ("variant", "dataset", "side"),
    [
        ("Nano/7", "fashion_mnist", 28),
        ("Nano/8", "fashion_mnist", 32),
        ("Mixer-S/16", "digits", 16),
        ("R50x1", "digits", 16),
    ],
)
def test_small_images_grow_to_whole_patches(variant, dataset, side):
    assert load("pretrain", f"variant={variant},dataset={dataset}").data.resolution == (side, side)


def test_the_held_out_images_are_not_trained_on():
    # 51,200 images of ImageNet-21k's only split are the release's validation and test images; 1% of ImageNet's.
    assert load("pretrain", "dataset=imagenet21k").data.split == "full[51200:]"
    assert load("pretrain", "dataset=imagenet21k").evals.val.split == "full[25600:51200]"
    assert load("pretrain", "dataset=imagenet2012").data.split == "train[:99%]"
    assert load("pretrain", "dataset=imagenet2012").evals.val.split == "train[99%:]"


# AugReg's recommended checkpoints, as their file names say: augmentation (RandAugment's layers and magnitude, mixup), weight
# decay, dropout and stochastic depth.
AUGREG = {
    "Ti/16": ((0, 0), 0.0, 0.03, 0.0),
    "S/32": ((0, 0), 0.0, 0.1, 0.0),
    "S/16": ((2, 0), 0.0, 0.03, 0.0),
    "B/32": ((2, 0), 0.0, 0.1, 0.0),
    "B/16": ((2, 15), 0.2, 0.1, 0.0),
    "B/8": ((2, 15), 0.5, 0.1, 0.0),
    "L/16": ((2, 20), 0.5, 0.1, 0.0),
    "R+Ti/16": ((0, 0), 0.0, 0.03, 0.0),
    "R26+S/32": ((2, 0), 0.0, 0.1, 0.0),
    "R50+L/32": ((2, 15), 0.2, 0.1, 0.1),
}


@pytest.mark.parametrize("variant", AUGREG)
def test_augreg_trains_each_size_as_its_checkpoint_is_named(variant):
    randaugment, mixup, weight_decay, drop = AUGREG[variant]
    config = load("augreg", f"variant={variant}")
    assert (config.data.randaugment, config.train.mixup) == (randaugment, mixup)
    optim = some(config.optim, "name", "lr", "decay", "weight_decay", "clip_norm")
    assert optim == ("adam", 1e-3, "cosine", weight_decay, 1.0)
    assert steps_of(config, lambda c: c.optim.warmup) == 10_000
    assert (config.train.duration, config.data.batch_size) == ("300 epochs", 4096)
    assert some(config.model, "dropout", "stochastic_depth", "representation_size") == (drop, drop, 0)
    assert (config.objective.name, config.model.head_bias, config.model.num_classes) == ("sigmoid", -10.0, 21843)
    assert config.evals.val.recipe == "eval_crop"


def test_augreg_on_imagenet_is_softmax_with_a_representation_layer():
    config = load("augreg", "variant=B/16,dataset=imagenet2012,epochs=30")
    assert configs.to_dict(config.objective) == {"name": "softmax", "label_smoothing": 0.0, "class_weights": []}
    assert some(config.model, "representation_size", "head_bias", "dropout") == (768, 0.0, 0.0)
    assert (config.data.randaugment, config.train.mixup, config.optim.weight_decay) == ((2, 15), 0.5, 0.1)
    assert config.train.duration == "30 epochs"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("dataset=cifar10", "configs/pretrain.py takes any, with augreg=NAME"),
        ("epochs=90", "AugReg has 300 and 30"),
        ("variant=Mixer-B/16", "AugReg trains ViTs and hybrids"),
        ("aug=medium", r"augreg=medium: did you mean 'medium"),
    ],
)
def test_what_augreg_did_not_train_is_an_error(arguments, message):
    with pytest.raises(UserError, match=message):
        load("augreg", arguments)


def test_a_rows_augreg_is_the_augmentation_alone():
    pairs = (load("pretrain", f"variant=B/16,dataset=imagenet21k,augreg={name}") for name in ("none", "strong2"))
    lines = configs.differences(*(configs.to_dict(config) for config in pairs))
    assert [line.split(":")[0] for line in lines] == ["data.randaugment", "train.mixup"]


# Hybrids, ResNets, Mixers


# Parameters with 1,000 classes and no representation layer: the reference implementation's tests.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "count", "grid"),
    [
        ("R+Ti/16", 6_337_704, 7),
        ("R26+S/32", 36_431_912, 7),
        ("R50+B/16", 98_659_112, 14),
    ],
)
def test_hybrids_are_the_released_ones(variant, count, grid):
    config = load("hybrid", f"variant={variant},dataset=imagenet2012")
    assert some(config.optim, "lr", "decay", "weight_decay", "clip_norm") == (3e-3, "cosine", 0.3, 1.0)
    assert config.model.representation_size == (d := config.model.width)
    assert params_of(config) == count + d * d + d
    assert grid_of(config) == (grid, grid)


@pytest.mark.parametrize("variant", ["R50+B/16", "R50+B/32", "R50+L/32", "R50+L/16"])
def test_hybrids_train_by_table_3(variant):
    epochs, lr, decay, weight_decay, dropout = ROWS_3[variant, "jft"]
    for length in epochs:
        config = load("hybrid", f"variant={variant},dataset=jft,epochs={length}")
        assert config.train.duration == f"{length} epochs"
        assert some(config.optim, "lr", "decay", "weight_decay") == (lr, decay, weight_decay)
        assert config.model.dropout == dropout
        assert grid_of(config) == ((14, 14) if variant.endswith("16") else (7, 7))
    with pytest.raises(UserError, match="epochs=9: table 3 has"):
        load("hybrid", f"variant={variant},dataset=jft,epochs=9")


@pytest.mark.parametrize("variant", ["B/16", "R50x1", "R50+B/61"])
def test_what_is_no_hybrid_names_one_that_is(variant):
    with pytest.raises(UserError, match=rf"no hybrid '{re.escape(variant)}'; did you mean 'R.*\+.*'\?"):
        load("hybrid", f"variant={variant}")


# Millions of parameters with 1,000 classes, as published with the converted weights.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "millions"),
    [("R50x1", 25.55)],  # the others are counted in models/test_variants.py
)
def test_resnets_are_the_released_ones(variant, millions):
    config = load("bit", f"variant={variant},dataset=imagenet2012,optimizer=sgd")
    assert round(params_of(config) / 1e6, 2) == millions
    assert grid_of(config) == (7, 7)


@pytest.mark.parametrize("variant", ["R50x1", "R50x2", "R101x1", "R152x1", "R152x2", "R200x3"])
def test_resnets_train_with_adam_by_table_3(variant):
    (epochs,), lr, decay, weight_decay, _ = ROWS_3[variant, "jft"]
    config = load("bit", f"variant={variant},dataset=jft,optimizer=adam")
    assert some(config.optim, "name", "lr", "decay", "weight_decay") == ("adam", lr, decay, weight_decay)
    assert config.train.duration == f"{epochs} epochs"


# BiT's recipe: arXiv 1912.11370 (0.03 for every 256 images), and on ImageNet that of its authors' released code (0.1).
@pytest.mark.parametrize(
    ("dataset", "choices", "lr", "warmup", "clip_norm", "loss", "bias"),
    [
        ("jft", (7, 40), 0.03 * 4096 / 256, 5000, 0.0, "sigmoid", -10.0),
        ("imagenet21k", (90,), 0.03 * 4096 / 256, 5000, 0.0, "sigmoid", -10.0),
        ("imagenet2012", (90,), 0.1 * 4096 / 256, 1000, 1.0, "softmax", 0.0),
    ],
)
def test_resnets_train_with_sgd_by_bits_recipe(dataset, choices, lr, warmup, clip_norm, loss, bias):
    arguments = f"variant=R50x1,dataset={dataset},optimizer=sgd"
    config = load("bit", arguments)
    optim = some(config.optim, "name", "lr", "momentum", "decay", "clip_norm")
    assert optim == ("sgd", pytest.approx(lr), 0.9, "cosine", clip_norm)
    assert (config.objective.name, config.model.head_bias, config.data.batch_size) == (loss, bias, 4096)
    assert steps_of(config, lambda c: c.optim.warmup) == warmup
    # An L2 loss of 1e-4, by way of the momentum; the released code shrinks kernels by 1e-4 / 256 * 4096 at its peak rate.
    assert config.optim.weight_decay == pytest.approx(1e-4 / (1 - 0.9))
    if dataset == "imagenet2012":
        assert config.optim.lr * config.optim.weight_decay == pytest.approx(1e-4 / 256 * 4096)
    assert config.train.duration == f"{choices[0]} epochs"
    for epochs in choices:
        assert load("bit", f"{arguments},epochs={epochs}").train.duration == f"{epochs} epochs"
    with pytest.raises(UserError, match="epochs=8: SGD has"):
        load("bit", f"{arguments},epochs=8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("variant=B/16", "no ResNet 'B/16'; write it as R26, R50, R101, R152, R200 and a width"),
        ("variant=R51x1", "no ResNet 'R51x1'"),
        ("optimizer=adma", r"optimizer=adma is unknown; did you mean 'adam'\?"),
        ("optimizer=adam,epochs=40", "epochs=40: table 3 has"),
    ],
)
def test_what_is_no_resnet_or_optimizer_is_an_error(arguments, message):
    with pytest.raises(UserError, match=message):
        load("bit", arguments)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "count"), [("Mixer-B/16", 59_880_472), ("Mixer-B/32", 60_293_428)])
def test_mixers_are_the_released_ones(variant, count):
    assert params_of(load("pretrain", f"variant={variant},dataset=imagenet2012")) == count


# Ablations


def changed(config, base="variant=B/16,dataset=jft,fewshot"):
    """What an ablation changes of the row that it starts from: {path: (row's value, its own)}."""
    pairs = [configs.to_dict(load("pretrain", base)), configs.to_dict(config)]
    lines = (re.fullmatch(r"([\w.]+): (.*) -> (.*)", line).groups() for line in configs.differences(*pairs))
    return {path: (ast.literal_eval(old), ast.literal_eval(new)) for path, old, new in lines}


# Table 8: 5-shot linear accuracy on ImageNet by where the positions act.
TABLE_8 = {
    ("none", "stem"): "0.61382",
    ("learned_1d", "stem"): "0.64206",
    ("learned_1d", "every_layer"): "0.63964",
    ("learned_1d", "shared"): "0.64292",
    ("learned_2d", "stem"): "0.64001",
    ("learned_2d", "every_layer"): "0.64046",
    ("learned_2d", "shared"): "0.64022",
    ("relative", "every_layer"): "0.64032",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("positions", "at"), [*TABLE_8, *[("sincos_2d", at) for at in ("stem", "every_layer", "shared")]]
)
def test_every_cell_of_table_8_is_b16_with_other_positions_and_nothing_else(positions, at):
    config = load("ablation_posemb", f"positions={positions},at={at}")
    assert some(config.model, "positions", "positions_at") == (positions, at)
    # Relative positions act inside the attention, which only the plain core allows.
    assert set(changed(config)) <= {"model.positions", "model.positions_at", "model.attention"}
    assert config.model.attention == ("xla" if positions == "relative" else "fused")
    check_five_shot(config)
    d, grid, layers = 768, 14, 12
    # A table for the class token and every patch; for columns and for rows, half as wide; offsets, and 3 of the class token.
    tables = {
        "learned_1d": (grid**2 + 1) * d,
        "learned_2d": 2 * grid * d // 2,
        "relative": (2 * grid**2 - 1 + 3) * d,
    }
    without = params_of(load("ablation_posemb", "positions=none"))
    assert params_of(config) - without == tables.get(positions, 0) * (layers if at == "every_layer" else 1)


def test_table_8_is_in_the_docstring():
    lines = {line.split()[0]: line.split()[1:] for line in docstring_of("ablation_posemb").splitlines() if line.strip()}
    for kind in ("none", "learned_1d", "learned_2d", "relative"):
        assert lines[kind] == [score for (positions, _), score in TABLE_8.items() if positions == kind]


def test_positions_act_by_default_where_they_first_can():
    assert load("ablation_posemb", "positions=learned_2d").model.positions_at == "stem"
    assert load("ablation_posemb", "positions=relative").model.positions_at == "every_layer"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("positions=relative,at=stem", "no cell of table 8; for relative, at is every_layer"),
        ("positions=relative,at=shared", "no cell of table 8; for relative, at is every_layer"),
        ("positions=none,at=shared", "no cell of table 8; for none, at is stem"),
        ("positions=learned_1d,at=stemm", "for learned_1d, at is stem or every_layer or shared"),
        ("positions=learned_3d", r"positions=learned_3d is unknown; did you mean 'learned_"),
    ],
)
def test_a_cell_without_meaning_names_the_right_one(arguments, message):
    with pytest.raises(UserError, match=message):
        load("ablation_posemb", arguments)


@pytest.mark.parametrize("pool", ["token", "gap", "map"])
@pytest.mark.parametrize("lr", [3e-4, 8e-4, 3e-3])
@pytest.mark.parametrize("representation", [True, False])
def test_the_head_is_ablated_alone_at_every_rate(pool, lr, representation):
    config = load("ablation_head", f"pool={pool},lr={lr},representation={str(representation).lower()}")
    found = {
        "model.pool": ("token", pool),
        "optim.lr": (8e-4, lr),
        "model.representation_size": (768, 768 if representation else 0),
    }
    assert changed(config) == {key: (old, new) for key, (old, new) in found.items() if old != new}
    check_five_shot(config)


def test_averaged_patches_have_no_class_token_and_no_tanh_layer_if_so_wished():
    # The reference implementation's count of B/16 with average pooling, and 1,000 classes.
    config = load("ablation_head", "pool=gap,representation=false,dataset=imagenet2012")
    assert params_of(config) == 86_566_120


@pytest.mark.parametrize(
    ("arguments", "message"),
    [("pool=tokn", r"pool=tokn is unknown; did you mean 'token'\?"), ("lr=0.001", r"lr=0.001: the sweep is \(0.0003")],
)
def test_an_unknown_head_or_rate_is_an_error(arguments, message):
    with pytest.raises(UserError, match=message):
        load("ablation_head", arguments)


# The base point, and each of its dimensions by the key of the model that it sets.
SHAPE = {"depth": 8, "width": 1024, "mlp_dim": 2048, "patch_size": (32, 32)}
SHAPES = {
    "depth": ("depth", (2, 4, 8, 16, 32, 64)),
    "width": ("width", (256, 512, 1024, 2048, 4096)),
    "mlp": ("mlp_dim", (512, 1024, 2048, 4096, 8192)),
    "patch": ("patch_size", (56, 32, 28, 16, 14, 8)),
}


@pytest.mark.slow
@pytest.mark.parametrize("dimension", SHAPES)
def test_a_dimension_is_scaled_alone(dimension):
    key, values = SHAPES[dimension]
    for value in values:
        config = load("ablation_shape", f"dimension={dimension},value={value}")
        expected = SHAPE | {key: (value, value) if dimension == "patch" else value}
        assert dict(zip(SHAPE, some(config.model, *SHAPE), strict=True)) == expected
        assert some(config.model, "num_heads", "representation_size") == (expected["width"] // 64, expected["width"])
        assert config.data.resolution == (224, 224)
        assert (config.optim.lr, config.optim.weight_decay) == (8e-4, 0.1)
        params_of(config)
        check_five_shot(config)


@pytest.mark.parametrize(
    ("value", "shape"),
    [("0.5", (4, 512, 1024, (56, 56))), ("1", (8, 1024, 2048, (32, 32))), ("2", (16, 2048, 4096, (16, 16)))],
)
def test_all_dimensions_are_scaled_together(value, shape):
    assert some(load("ablation_shape", f"dimension=all,value={value}").model, *SHAPE) == shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("dimension=dept,value=8", r"dimension=dept is unknown; did you mean 'depth'\?"),
        ("dimension=depth,value=7", r"depth takes the values \(2, 4, 8, 16, 32, 64\), not 7;"),
        ("dimension=depth", "depth takes the values .* not 1;"),
    ],
)
def test_an_unknown_dimension_or_value_is_an_error(arguments, message):
    with pytest.raises(UserError, match=message):
        load("ablation_shape", arguments)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["B/32", "B/16"])
def test_axial_is_the_variant_with_rows_and_columns_and_twice_the_blocks(variant):
    config = load("ablation_axial", f"variant={variant}")
    base = f"variant={variant},dataset=jft,fewshot"
    assert changed(config, base) == {"model.axial": (False, True), "model.pool": ("token", "gap")}
    check_five_shot(config)
    # 12 more blocks of 7,087,872 parameters (table 1's base); no class token, and no position for it.
    assert params_of(config) - params_of(load("pretrain", base)) == 12 * 7_087_872 - 2 * 768


def test_an_axial_model_is_a_vits():
    with pytest.raises(UserError, match="no size 'R50x1'"):
        load("ablation_axial", "variant=R50x1")


# Table 4


@pytest.mark.parametrize("dataset", TABLE_4)
def test_fine_tuning_is_table_4(dataset):
    steps, rates, held_out = TABLE_4[dataset]
    config = load("finetune", f"variant=B/16,dataset={dataset}")
    assert some(config.optim, "name", "momentum", "decay", "weight_decay", "clip_norm") == (
        "sgd",
        0.9,
        "cosine",
        0.0,
        1.0,
    )
    assert config.optim.lr in rates
    assert steps_of(config, lambda c: c.train.duration) == steps
    assert config.data.batch_size == 512
    assert config.data.resolution == (384, 384)
    assert config.objective.name == "softmax"
    assert some(config.model, "representation_size", "dropout", "head_bias", "num_classes") == (0, 0.0, 0.0, None)
    assert (config.init.head, config.train.average_decay) == ("zeros", 0.0)
    # The final run trains on the whole training set, and scores the test split.
    assert config.data.split == "train"
    # The authors' own runs: the Inception crop, 5 to 100% of the area, and flip; evaluated by squashing.
    assert some(config.data, "recipe", "crop_area", "flip") == ("pretrain", (0.05, 1.0), True)
    (scored,) = config.evals.values()
    assert (scored.split, scored.recipe) == ("validation" if dataset == "imagenet2012" else "test", "eval")
    # To choose the rate, a part of the training set is held out and scored.
    config = load("finetune", f"variant=B/16,dataset={dataset},dev")
    (scored,) = config.evals.values()
    assert (config.data.split, scored.split) == (f"train[:{100 - held_out}%]", f"train[{100 - held_out}%:]")
    assert config.checkpoint.best_metric == "eval/dev/top1"


@pytest.mark.parametrize(
    ("crop", "resized", "keep_aspect"),
    [("inception", None, False), ("resize", 448, False), ("resize_small", 448, True)],
)
def test_the_crop_of_training_images_is_an_argument(crop, resized, keep_aspect):
    for dataset in ("cifar10", "imagenet2012,table2"):
        config = load("finetune", f"variant=B/16,dataset={dataset},crop={crop}")
        side = config.data.resolution[0]
        made = describe_transform(make_transform(config.data.recipe, config.data.resolution))
        larger = resized and round(resized * side / 384)
        assert (made["resized_to"], made["keep_aspect"]) == (larger and [larger, larger], keep_aspect)
        assert (made["crop"], made["flip"]) == ("random" if resized else "inception", True)
        grid = load_grid(f"{ROOT / 'configs' / 'finetune.py'}:variant=B/16,dataset=cifar10,crop={crop}", [])
        assert (
            configs.load(grid.final_runs("cifar10", grid.candidates()[0])[0].config).data.recipe == config.data.recipe
        )
    with pytest.raises(UserError, match=r"crop=inceptoin: did you mean 'inception'\?"):
        load("finetune", "dataset=cifar10,crop=inceptoin")
    with pytest.raises(UserError, match="each VTAB task has a crop of its own"):
        load("finetune", "dataset=vtab/dtd,crop=resize")


def test_flowers_validation_images_are_trained_on_by_name_only():
    assert load("finetune", "dataset=oxford_flowers102,trainval").data.split == "train+validation"
    for arguments in ("dataset=oxford_flowers102,trainval,dev", "dataset=oxford_iiit_pet,trainval"):
        with pytest.raises(UserError, match="trainval adds Flowers' validation images"):
            load("finetune", arguments)


# The release's settings: 0.1 for L/16, H/14, R50+B/16 and, inheriting from L/16, R50+L/32; AugReg fine-tunes without.
@pytest.mark.parametrize(
    ("arguments", "dropout"),
    [
        *[(f"variant={v}", 0.1) for v in ("L/16", "H/14", "R50+B/16", "R50+L/32")],
        *[(f"variant={v}", 0.0) for v in ("Ti/16", "S/32", "B/8", "B/16", "B/32", "L/32", "R26+B/32", "R+Ti/16")],
        ("init=imagenet21k:L/16", 0.1),
        ("init=imagenet21k:R50+B/16", 0.1),
        ("init=imagenet21k:B/16", 0.0),
        ("init=imagenet21k+imagenet2012:L/16", 0.1),
        ("init=imagenet21k+imagenet2012:B/16-224", 0.0),
        ("init=weights/ViT-L_16.npz", 0.1),
        ("init=R50+ViT-B_16.npz", 0.1),
        ("init=ViT-L_32.npz", 0.0),
        ("init=augreg:L/16", 0.0),
        ("init=augreg:R50+L/32", 0.0),
        ("init=L_16-i21k-300ep-lr_0.001-aug_strong1-wd_0.1-do_0.0-sd_0.0.npz,variant=L/16", 0.0),
        ("init=runs/mine", 0.0),
        ("variant=L/16,dataset=vtab/dtd", 0.0),
    ],
)
def test_dropout_in_fine_tuning_is_the_releases(arguments, dropout):
    assert load("finetune", arguments).model.dropout == dropout


@pytest.mark.parametrize("dataset", TABLE_4)
def test_the_rates_swept_are_table_4s_and_no_other(dataset):
    for lr in TABLE_4[dataset][1]:
        assert load("finetune", f"dataset={dataset},lr={lr}").optim.lr == lr
    with pytest.raises(UserError, match=r"lr=0.002: table 4 sweeps \("):
        load("finetune", f"dataset={dataset},lr=0.002")


@pytest.mark.parametrize("task", VTAB)
def test_vtab_tasks_train_on_a_thousand_examples(task):
    name, train, val, test = VTAB[task]
    table = vtab.TASKS[task]
    assert (table.dataset, table.train800, table.val200, table.test) == (name, train, val, test)
    config = load("finetune", f"dataset=vtab/{task}")
    assert some(config.data, "dataset", "split") == (f"vtab/{task}", "train800val200")
    assert config.evals.test.split == "test"
    assert (config.optim.lr, config.data.resolution) == (0.01, (384, 384))
    assert steps_of(config, lambda c: c.train.duration) == 2500
    assert (config.data.recipe == "finetune") == (task not in NO_CROP)
    assert (config.data.flip and config.data.recipe != "eval") == (task not in NO_FLIP)
    config = load("finetune", f"dataset=vtab/{task},dev")
    assert (config.data.split, config.evals.dev.split) == ("train800", "val200")


def test_vtab_has_its_nineteen_tasks():
    assert set(vtab.TASKS) == set(VTAB)
    assert len(VTAB) == 19


def test_a_misspelt_vtab_task_names_the_nearest():
    with pytest.raises(UserError, match=r"no VTAB task 'eurosad'; did you mean 'eurosat'\?"):
        load("finetune", "dataset=vtab/eurosad")


@pytest.mark.parametrize(("variant", "pixels"), [("L/16", 512), ("H/14", 518)])
def test_table_2_is_imagenet_at_higher_resolution_with_polyak_averaging(variant, pixels):
    config = load("finetune", f"variant={variant},dataset=imagenet2012,table2")
    assert config.data.resolution == (pixels, pixels)
    assert config.train.average_decay == 0.9999
    assert steps_of(config, lambda c: c.train.duration) == 20_000
    with pytest.raises(UserError, match="table2 is the ImageNet set-up"):
        load("finetune", f"variant={variant},dataset=cifar10,table2")


@pytest.mark.parametrize(("variant", "size"), [("H/14", (378, 378)), ("B/32", (384, 384)), ("S/16x12", (384, 384))])
def test_the_resolution_is_the_largest_multiple_of_the_patch(variant, size):
    assert load("finetune", f"variant={variant}").data.resolution == size


def test_a_folder_of_ones_own_is_fine_tuned_with_what_it_has(image_folder):
    config = load("finetune", f"variant=Ti/16,dataset={image_folder}")
    (scored,) = config.evals.values()
    assert (config.data.split, scored.split) == ("train_kept", "train_held_out")
    assert some(config.data, "recipe", "resolution", "batch_size") == ("pretrain", (224, 224), 64)
    (image_folder / "test").mkdir()
    config = load("finetune", f"variant=Ti/16,dataset={image_folder}")
    (scored,) = config.evals.values()
    assert (config.data.split, scored.split) == ("train", "test")
    assert (scored.dataset, scored.resolution) == (str(image_folder), config.data.resolution)
    dev = load("finetune", f"variant=Ti/16,dataset={image_folder},dev")
    assert (dev.data.split, dev.evals.dev.split) == ("train_kept", "train_held_out")


def test_a_name_of_tfdss_beside_its_prepared_folder_is_no_folder_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
    (tmp_path / "cifar10" / "3.0.2" / "dataset_info.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    config = load("finetune", "variant=Ti/16,dataset=cifar10")
    assert (config.data.split, config.evals.test.split) == ("train", "test")


def test_the_splits_of_a_list_are_its_third_column_whatever_separates_it(tmp_path):
    for name, separator in (("a.csv", ","), ("a.tsv", "\t")):
        (tmp_path / name).write_text(f"a.jpg{separator}x{separator}train\nb.jpg{separator}x{separator}test\n")
        config = load("finetune", f"variant=Ti/16,dataset={tmp_path / name}")
        assert (config.data.split, config.evals.test.split) == ("train", "test")
    (tmp_path / "latin.csv").write_bytes(b"caf\xe9.jpg,x\n")
    assert load("finetune", f"variant=Ti/16,dataset={tmp_path / 'latin.csv'}").data.split == "train_kept"


# VTAB-1k


def test_vtab_is_the_papers_protocol():
    config = load("vtab", "variant=B/16,task=clevr_dist")
    assert (config.data.split, config.evals.test.split) == ("train800val200", "test")
    assert (config.train.duration, config.data.batch_size, config.data.resolution) == ("2500 steps", 512, (384, 384))
    assert some(config.optim, "name", "lr", "decay", "warmup", "clip_norm") == ("sgd", 0.01, "cosine", "200 steps", 1.0)
    dev = load("vtab", "variant=B/16,task=clevr_dist,dev")
    assert (dev.data.split, dev.evals.dev.split) == ("train800", "val200")


def test_the_light_protocol_is_the_benchmarks_own_scripts():
    config = load("vtab", "variant=B/32,task=dtd,protocol=light")
    assert (config.data.split, config.evals.test.split) == ("trainval1000", "test")
    assert (config.train.duration, config.data.batch_size, config.data.resolution) == ("1000 steps", 64, (224, 224))
    assert some(config.data, "recipe", "flip", "randaugment") == ("eval", False, (0, 0))
    assert some(config.optim, "name", "lr", "decay", "warmup", "clip_norm", "weight_decay") == (
        *("sgd", 0.01, "staircase", "80 steps", 0.0, 0.0),
    )
    with pytest.raises(UserError, match="protocol=lite: expected one of paper, light"):
        load("vtab", "task=dtd,protocol=lite")


def test_vtab_sweeps_all_19_with_three_seeds():
    grid = load_grid(f"{ROOT / 'configs' / 'vtab.py'}:variant=B/16", [])
    assert (len(grid.sweep.tasks), grid.sweep.seeds, grid.sweep.tasks_in_mean) == (19, (0, 1, 2), 19)
    assert grid.num_runs == 57  # one learning rate: nothing to choose
    assert load_grid(f"{ROOT / 'configs' / 'vtab.py'}:variant=B/16,lr=0.003+0.01", []).num_runs == 19 * (2 + 3)


def test_fine_tuning_sweeps_the_whole_row_of_table_4():
    for dataset, (_, rates, _) in TABLE_4.items():
        grid = load_grid(f"{ROOT / 'configs' / 'finetune.py'}:variant=B/16,dataset={dataset}", [])
        assert grid.sweep.candidates == {"optim.lr": rates}
        assert grid.num_runs == 4 + 3
    both = load_grid(f"{ROOT / 'configs' / 'finetune.py'}:variant=B/16,dataset=cifar10+cifar100", [])
    assert [task.title for task in both.sweep.tasks] == ["CIFAR-10", "CIFAR-100"]
    with pytest.raises(UserError, match="table 4 sweeps other rates for some"):
        load_grid(f"{ROOT / 'configs' / 'finetune.py'}:variant=B/16,dataset=cifar10+imagenet2012", [])


@pytest.mark.parametrize("name", ["finetune:dataset=cifar10", "vtab:variant=B/16", "fewshot:init=x.npz"])
def test_a_sweeps_seeds_are_how_many(name):
    name, arguments = name.split(":")
    assert load_grid(f"{ROOT / 'configs' / name}.py:{arguments},seeds=2", []).sweep.seeds == (0, 1)
    for wrong in ("0", "0+1", "-1", "two"):
        with pytest.raises(UserError, match=r"expected how many, 1 or more; seeds=3 runs seeds 0, 1 and 2"):
            load_grid(f"{ROOT / 'configs' / name}.py:{arguments},seeds={wrong}", [])


# Fine-tuning of masked models

# FINETUNE.md of MAE (effective rate = base rate x batch / 256) and SimMIM's vit_base__800ep yaml (x batch / 512):
# epochs, warm-up epochs, batch, rate, layer decay, drop path, clipping.
FINETUNE_MASKED = {
    "variant=B/16": (100, 5, 1024, 5e-4 * 4, 0.65, 0.1, 0.0),
    "variant=L/16": (50, 5, 1024, 1e-3 * 4, 0.75, 0.2, 0.0),
    "variant=H/14": (50, 5, 1024, 1e-3 * 4, 0.75, 0.3, 0.0),
    "variant=B/16,recipe=simmim": (100, 20, 2048, 1.25e-3 * 4, 0.65, 0.1, 5.0),
}


@pytest.mark.parametrize("arguments", FINETUNE_MASKED)
def test_masked_models_are_fine_tuned_as_published(arguments):
    epochs, warmup, batch, rate, decay, depth, clip = FINETUNE_MASKED[arguments]
    config = settle(load("finetune_masked", arguments), Facts("cpu", 1000))[0]
    assert (config.train.duration, config.optim.warmup) == (f"{epochs} epochs", f"{warmup} epochs")
    assert config.data.batch_size == batch
    assert config.optim.lr == pytest.approx(rate)
    assert some(config.optim, "name", "layer_decay", "weight_decay", "clip_norm") == ("adam", decay, 0.05, clip)
    assert some(config.optim, "b1", "b2", "decay") == (0.9, 0.999, "cosine")
    assert some(config.model, "stochastic_depth", "dropout", "pool", "norm_after_pool") == (depth, 0.0, "gap", True)
    assert some(config.train, "mixup", "cutmix") == (0.8, 1.0)
    assert some(config.data, "random_erasing", "auto_augment", "crop_area") == (
        0.25,
        "rand-m9-mstd0.5-inc1",
        (0.08, 1.0),
    )
    assert (config.objective.label_smoothing, config.data.resolution) == (0.1, (224, 224))
    assert {section.recipe for section in config.evals.values()} == {"eval_crop"}
    params = abstract_params(build_model(config), (224, 224))
    assert {"cls", "fc_norm", "head"} <= set(params)
    assert "encoder_norm" not in params["Transformer"]


# The quickstart


def test_the_quickstart_is_the_paper_in_small():
    before, after = (settle(load("quickstart", of), Facts("cpu", 10))[0] for of in ("pretrain", "finetune,init=runs/x"))
    assert (before.optim.name, after.optim.name) == ("adam", "sgd")
    assert (before.model.representation_size, after.model.representation_size) == (96, 0)
    assert (after.init.path, after.init.head) == ("runs/x", "zeros")
    assert grid_of(before) == (4, 4)
    assert min(grid_of(after)) > 4  # a higher resolution, so positions are interpolated
    assert min(before.train.average_decay, after.train.average_decay) > 0.9
    for config in (before, after):
        # Half of the training images are held out with the test images.
        assert config.data.split == config.evals.fewshot.train_split == "train[:50%]"
        assert config.evals.digits.split == config.evals.fewshot.test_split == "train[50%:]+test"
        assert config.evals.fewshot.shots == (1, 5, 10)
    for key in ("width", "depth", "mlp_dim", "num_heads", "patch_size"):
        assert before.model[key] == after.model[key]


# Masked pre-training


def test_simmim_is_trained_as_its_authors_trained_vit_b():
    config = load("masked", "objective=simmim,variant=B/16,dataset=imagenet2012")
    assert some(config.objective, "name", "mask_patch", "ratio") == ("simmim", (32, 32), 0.6)
    assert some(config.optim, "b1", "b2", "eps", "weight_decay", "clip_norm") == (0.9, 0.999, 1e-8, 0.05, 5.0)
    assert (config.data.batch_size, config.optim.lr) == (2048, pytest.approx(1e-4 * 2048 / 512))
    assert (config.train.duration, config.optim.warmup) == ("800 epochs", "10 epochs")
    assert (config.optim.decay, config.optim.stairs) == ("staircase", (700 / 800,))
    assert (config.data.crop_area, config.data.flip, config.model.stochastic_depth) == ((0.67, 1.0), True, 0.1)
    assert (config.model.name, config.model.decoder, config.model.positions) == ("masked", "pixels", "learned_1d")
    published = load("masked", "objective=simmim,published").model
    assert some(published, "positions", "positions_at", "layer_scale", "pool") == (
        "relative_bias",
        "shared",
        0.1,
        "gap",
    )


def test_mae_is_trained_as_its_authors_trained_all_sizes():
    config = load("masked", "objective=mae,variant=L/16,dataset=imagenet2012")
    assert some(config.objective, "name", "norm_pix") == ("mae", True)
    assert some(config.optim, "b1", "b2", "weight_decay", "clip_norm", "decay") == (0.9, 0.95, 0.05, 0.0, "cosine")
    assert (config.data.batch_size, config.optim.lr) == (4096, pytest.approx(1.5e-4 * 4096 / 256))
    assert (config.train.duration, config.optim.warmup) == ("800 epochs", "40 epochs")
    assert (config.data.crop_area, config.data.flip) == ((0.2, 1.0), True)
    decoder = some(config.model, "decoder_width", "decoder_depth", "decoder_heads", "decoder_mlp_dim")
    assert decoder == (512, 8, 16, 2048)
    assert some(config.model, "mask_ratio", "positions", "stochastic_depth", "dropout") == (
        0.75,
        "sincos_mae",
        0.0,
        0.0,
    )


def test_masked_patch_prediction_is_appendix_b_1_2():
    config = load("masked", "objective=patches,dataset=jft")
    assert some(config.objective, "target", "corrupt", "masked", "replaced") == ("mean_colour", 0.5, 0.8, 0.1)
    assert some(config.optim, "lr", "decay", "weight_decay", "b1", "b2") == (2e-4, "cosine", 0.1, 0.9, 0.999)
    assert (config.data.batch_size, config.train.duration, config.optim.warmup) == (
        4096,
        "1000000 steps",
        "10000 steps",
    )
    assert (config.model.decoder, config.model.dropout, config.data.resolution) == ("mean_colour", 0.0, (224, 224))


@pytest.mark.slow
def test_an_mae_of_l16_trains_on_a_quarter_of_the_patches():
    flops = {}
    for name in ("mae", "simmim"):
        config, parts = stand_in(configs.load(f"configs/masked.py:objective={name},variant=L/16"), [], num_classes=10)
        flops[name] = parts.trace(8, config.data.resolution)[1]
    # Per block and token: 4 d^2 + 2 d m weights and 2 n d for attention, twice for multiply and add, thrice for training.
    encoder = {n: 6 * 24 * n * 1024 * (4 * 1024 + 2 * 4096 + 2 * n) for n in (50, 197)}
    decoder = 6 * 8 * 197 * 512 * (4 * 512 + 2 * 2048 + 2 * 197)
    assert flops["simmim"] == pytest.approx(encoder[197], rel=0.02)
    assert flops["mae"] == pytest.approx(encoder[50] + decoder, rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("objective=simmin", r"objective=simmin: did you mean 'simmim'"),
        ("objective=mae,published", r"published is SimMIM's model; with objective=mae leave it out"),
        ("variant=R50x1", r"variant=R50x1: ViTs and hybrids have patches to hide"),
    ],
)
def test_what_cannot_be_masked_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        load("masked", arguments)


# Every config


@pytest.fixture
def image_folder(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        PIL.Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "train" / name / "0.png")
    return tmp_path


def documented(program):
    """(file, what follows the colon) of every `vit_jax PROGRAM` in a config's docstring."""
    found = []
    for file in FILES:
        text = re.sub(r"\\\n\s*", "", file.read_text().split('"""')[1])
        commands = re.findall(r"vit_jax (\w+) .*--config=configs/(\w+)\.py(?::(\S*))?", text)
        assert commands, f"{file.name} documents no command"
        assert {name for _, name, _ in commands} == {file.stem}
        found += [(file.stem, arguments) for verb, _, arguments in commands if verb == program]
    return found


@pytest.mark.parametrize("judge", ["linear", "fewshot"])
def test_objectives_are_judged_on_the_labelled_images_alone(judge):
    file = str(ROOT / "configs" / "objectives.py")
    (run,) = load_grid(f"{file}:inits=a,labelled=300,judge={judge},seeds=1", []).final_runs("a", {})
    assert (probe_config(run).train_split, probe_config(run).test_split) == ("train[:300]", "test")
    tuned = configs.load(f"{file}:init=a,labelled=300")
    assert (tuned.data.split, tuned.evals.test.split, tuned.init.path) == ("train[:300]", "test", "a")
    assert configs.load(f"{file}:init=scratch").init.path == ""
    with pytest.raises(UserError, match="scratch goes with judge=finetune alone"):
        load_grid(f"{file}:inits=scratch+a,judge={judge}", [])


@pytest.mark.slow
def test_the_canvases_classifier_has_the_encoder_of_their_detector():
    def shapes(flag):
        config = settle(load("detection", f"variant=Nano/8,dataset=canvases{flag}"), Facts("cpu", 10))[0]
        model = build_model(config).clone(scan=False)
        return {name: x.shape for name, x in flatten_dict(shapes_of(model, config.data.resolution), sep="/").items()}

    classifier, detector = shapes(",classifier"), shapes("")
    encoder = {name: shape for name, shape in classifier.items() if not name.startswith("head/")}
    assert len(encoder) > 20
    assert encoder.items() <= detector.items()


@pytest.mark.parametrize(
    ("arguments", "recipe", "sizes"),
    [  # 54/32 and 84/50 of the height, in whole patches, by hand
        ("variant=Ti/16", "detect_fit", [(256, 432), (320, 528), (384, 640), (448, 752), (512, 864)]),
        ("variant=S/16", "detect_fit", [(480, 800), (560, 928), (640, 1072), (720, 1200), (800, 1344)]),
        ("variant=Nano/8,dataset=canvases", "resize_flip", [(48, 48), (64, 64)]),
        ("variant=S/16,smoke", "resize_flip", [(96, 96), (128, 128)]),
    ],
)
def test_a_detectors_sizes_have_the_rows_aspect_and_end_at_its_canvas(arguments, recipe, sizes):
    data = load("detection", f"{arguments},sizes").data
    assert (data.recipe, list(data.sizes), data.resolution) == (recipe, sizes, sizes[-1])
    assert load("detection", arguments).data.sizes == ()
    with pytest.raises(UserError, match="without init and sizes"):
        configs.load(f"{ROOT / 'configs' / 'detection'}.py:dataset=canvases,classifier,sizes")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments"), documented("sweep"))
def test_every_documented_sweep_has_runs_that_resolve(name, arguments):
    grid = load_grid(f"{ROOT / 'configs' / name}.py:{arguments}", [])
    assert grid.num_runs >= len(grid.sweep.tasks) * len(grid.sweep.seeds) > 0
    for place, task in enumerate(grid.sweep.tasks):
        *dev, final = (*grid.dev_runs(task.name), grid.final_runs(task.name, grid.candidates()[0])[0])
        assert len(dev) in (0, len(grid.candidates()))
        if final.kind == "fewshot":
            probed = probe_config(final)
            inits = re.search(r"inits?=([^,]*)", arguments)[1].split("+")  # one of all tasks, or one of each
            assert (probed.init, probed.seed) == (inits[place % len(inits)], 0)
            continue
        for run in (*dev, final):
            config = configs.load(run.config)
            config = settled(config, run.overrides)
            assert config.optim.lr == run.candidate["optim.lr"]
            assert next(iter(config.evals)) == ("dev" if run.phase == "dev" else "test")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments"), documented("train"))
def test_every_documented_command_resolves_and_builds_its_model(name, arguments, image_folder):
    config = load(name, arguments.replace("FOLDER", str(image_folder)))
    config = settle(config, Facts("cpu", 10))[0]
    params = shapes_of(scanned(build_model(config)), config.data.resolution)
    if config.model.name == "yolos":
        assert params["head"]["Dense_2"]["bias"].shape == (config.model.num_classes + 1,)
    elif MODELS[config.model.name].classifies:
        assert params["head"]["bias"].shape == (config.model.num_classes,)
    else:
        assert "decoder" in params
        assert "head" not in params
    gh, gw = grid_of(config)
    assert min(gh, gw) > 0
    assert gh == gw or name == "detection"
    if config.model.get("positions") == "learned_1d" and config.model.get("positions_at") == "stem":
        tokens = gh * gw + ("cls" in params)
        positions = params["Transformer"]["posembed_input"]["pos_embedding"]
        assert positions.shape == (1, tokens, config.model.width)


def test_every_argument_is_documented_and_used_in_a_command():
    for file in FILES:
        source = file.read_text()
        docstring = source.split('"""')[1]
        arguments = re.findall(r"parse_arg\(\s*\w+,\s*([^)]*)\)", source)
        assert len(arguments) == len(re.findall(r"^def get_", source, re.MULTILINE))
        for key in re.findall(r"(\w+)=", " ".join(arguments)):
            # A probe's `dataset` is one of the sweep's `sets`, its `layer` one of the `layers`: nobody types them.
            typed = (file.stem, key) not in (("fewshot", "dataset"), ("linear", "dataset"), ("linear", "layer"))
            assert f"`{key}`" in docstring or not typed, f"{file.name}: {key}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_misspelt_argument_of_every_config_names_the_nearest(file):
    read = runpy.run_path(str(file))
    name, wrong, right = {
        "fewshot": ("get_sweep", "shot", "shots"),
        "linear": ("get_sweep", "layer", "layers"),
        "vtab": ("get_config", "protocl", "protocol"),
    }.get(file.stem, ("get_config", "smok", "smoke"))
    with pytest.raises(UserError, match=rf"'{wrong}' is unknown; did you mean '{right}'\?"):
        read[name](wrong)


SMOKES = [
    ("pretrain", "variant=B/16,dataset=imagenet21k"),
    ("pretrain", "variant=H/14,dataset=jft"),
    ("pretrain", "variant=S/32,dataset=imagenet2012"),
    ("pretrain", "variant=Nano/4,dataset=digits"),
    ("pretrain", "variant=B/16,dataset=imagenet21k,fewshot"),
    ("pretrain", "variant=B/16,dataset=imagenet2012,real"),
    ("pretrain", "variant=S/16x12,dataset=imagenet2012"),
    ("pretrain", "variant=Mixer-B/16,dataset=imagenet2012"),
    ("pretrain", "variant=R50x1,dataset=jft"),
    ("hybrid", "variant=R50+B/16,dataset=imagenet21k"),
    ("hybrid", "variant=R50+L/32,dataset=jft"),
    ("hybrid", "variant=R+Ti/16,dataset=imagenet2012"),
    ("bit", "variant=R152x4,dataset=jft,optimizer=adam"),
    ("augreg", "variant=B/16,dataset=imagenet21k"),
    ("augreg", "variant=R50+L/32,dataset=imagenet2012,real"),
    ("bit", "variant=R50x1,dataset=imagenet2012,optimizer=sgd"),
    *[("ablation_posemb", f"positions={kind}") for kind in ("none", "learned_2d", "relative", "sincos_2d")],
    ("ablation_posemb", "positions=learned_1d,at=shared"),
    *[("ablation_head", f"pool={pool},representation={tanh}") for pool in ("gap", "map") for tanh in ("true", "false")],
    ("ablation_shape", "dimension=depth,value=64"),
    ("ablation_shape", "dimension=width,value=4096"),
    ("ablation_shape", "dimension=mlp,value=8192"),
    ("ablation_shape", "dimension=patch,value=8"),
    ("ablation_shape", "dimension=all,value=2"),
    ("ablation_axial", "variant=B/32"),
    ("finetune", "variant=B/16,dataset=imagenet2012,real"),
    ("finetune", "variant=B/16,dataset=cifar10"),
    ("finetune", "variant=L/16,dataset=imagenet2012,table2"),
    ("finetune", "dataset=vtab/dtd,dev"),
    ("finetune_masked", "variant=B/16,recipe=simmim"),
    ("masked", "objective=simmim,variant=B/16,dataset=imagenet2012"),
    ("masked", "objective=simmim,variant=L/14,published"),
    ("masked", "objective=mae,variant=H/14,dataset=imagenet2012"),
    ("masked", "objective=patches,target=mean_colour,dataset=jft"),
    ("masked", "objective=patches,target=patch_4x4,corrupt=0.15,variant=R50+B/16"),
    ("masked", "objective=patches,target=pixels,variant=S/16x12"),
    ("quickstart", "pretrain"),
    ("quickstart", "finetune"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments"), SMOKES)
def test_smoke_is_small_needs_only_digits_and_keeps_the_row(name, arguments):
    whole, config = load(name, arguments), load(name, f"{arguments},smoke")
    assert {config.data.dataset, *(section.dataset for section in config.evals.values())} == {"digits"}
    assert steps_of(config, lambda c: c.train.duration, 1437) <= 20
    config = settle(config, Facts("cpu", 10))[0]
    assert params_of(config) < 10**6
    assert config.data.batch_size % 8 == 0
    for key in ("name", "lr", "decay", "weight_decay", "clip_norm"):
        assert config.optim[key] == whole.optim[key], key
    assert config.objective == whole.objective
    for key in ("name", "head_bias", "dropout", "pool", "positions", "positions_at", "axial", "stem"):
        assert config.model.get(key) == whole.model.get(key), key
    assert bool(config.model.get("representation_size")) == bool(whole.model.get("representation_size"))
    assert ("fewshot" in config.evals) == ("fewshot" in whole.evals)
    assert (config.data.recipe, config.init.head) == (whole.data.recipe, whole.init.head)
    assert config.train.average_decay == whole.train.average_decay


# resolve


def test_overrides_are_applied_and_all_mistakes_are_in_one_message():
    config = configs.load(str(ROOT / "configs" / "quickstart.py"))
    config = settled(config, [("data.resolution", "32"), ("evals.fewshot.shots", "1,2"), ("init", "x.npz")])
    assert (config.data.resolution, config.evals.fewshot.shots, config.init.path) == ((32, 32), (1, 2), "x.npz")
    assert config.evals.digits.resolution == (32, 32)  # inherited after the override
    assert (config.evals.digits.dataset, config.optim.b2) == ("digits", 0.999)
    with pytest.raises(UserError) as caught:
        settled(configs.load(str(ROOT / "configs" / "quickstart.py")), [("optim.lr", "x"), ("modle.depth", "1")])
    assert re.search(r"config.optim.lr=x(.|\n)*config.modle does not exist; did you mean 'model'", str(caught.value))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.model.update(name="vti"), r"config.model.name is 'vti'; did you mean 'vit'\?"),
        (lambda c: c.objective.update(name="sofmax"), r"config.objective.name is 'sofmax'; did you mean 'softmax'\?"),
        (lambda c: c.evals.digits.update(name="clasification"), r"config.evals.digits.name .* 'classification'\?"),
        (lambda c: c.model.update(widht=3), r"config.model.widht is read by nothing; did you mean 'width'\?"),
        (lambda c: c.data.update(recipie="x"), r"config.data.recipie .* 'recipe'\?"),
        (lambda c: c.data.update(exif="aply"), r"config.data.exif is 'aply'; expected one of 'apply'"),
        (lambda c: c.optim.update(decay="cos"), r"config.optim.decay is 'cos'; expected one of 'cosine', 'linear'"),
        (lambda c: c.train.update(accumulate=2), r"config.train.accumulate .* 'accumulation'\?"),
        (lambda c: c.checkpoint.update(keep=2), r"config.checkpoint.keep is read by nothing; did you mean 'keep_"),
        (lambda c: c.init.update(head="zero"), r"config.init.head is 'zero'; expected one of 'zeros', 'keep'"),
        (lambda c: c.evals.fewshot.update(shot=(1,)), r"config.evals.fewshot.shot .* 'shots'\?"),
        (lambda c: c.update(seed="one"), r"config.seed is 'one'; expected an integer"),
    ],
)
def test_every_section_is_checked(change, message):
    config = configs.load(str(ROOT / "configs" / "quickstart.py"))
    with config.unlocked(), config.ignore_type():
        change(config)
    with pytest.raises(UserError, match=message):
        settled(config)


def test_a_resolved_config_is_locked():
    with pytest.raises((AttributeError, KeyError)):
        load("quickstart").model.widht = 3
