"""Answers of a model about itself: the roles of its fields, its grid and its rows of a run's plan."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import pytest
from tiny import tiny_vit

from vit_jax.models.base import DEVICE, HEAD, IDENTITY, TRAINING, ImageModel, keys_of_role
from vit_jax.models.build import MODELS, abstract_params
from vit_jax.models.mixer import MlpMixer
from vit_jax.models.resnet import ResNet
from vit_jax.types import Outputs

ROLES = {
    "vit": (
        {"dropout", "attention_dropout", "stochastic_depth", "head_bias", "dtype", "scan"},
        {"num_classes", "representation_size"},
        {"gelu", "norm_eps"},
        {"attention", "remat"},
    ),
    "masked": (
        {"dropout", "attention_dropout", "stochastic_depth", "head_bias", "dtype", "scan", "decoder"},
        {"num_classes", "representation_size"},
        {"gelu", "norm_eps"},
        {"attention", "remat"},
    ),
    "mae": (
        {"dropout", "attention_dropout", "stochastic_depth", "head_bias", "dtype", "scan", "mask_ratio"},
        {"num_classes", "representation_size"},
        {"gelu", "norm_eps"},
        {"attention", "remat"},
    ),
    "mixer": ({"stochastic_depth", "head_bias", "dtype"}, {"num_classes"}, {"gelu"}, set()),
    "resnet": ({"head_bias", "dtype"}, {"num_classes"}, set(), set()),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_field_has_the_role_that_a_checkpoint_relies_on(name):
    assert tuple(keys_of_role(MODELS[name], role) for role in (TRAINING, HEAD, IDENTITY, DEVICE)) == ROLES[name]


def test_a_plan_has_the_sizes_and_notes_those_that_train_poorly():
    vit = tiny_vit(width=64, num_heads=2, depth=3)
    assert vit.describe((16, 24)) == [("model", "3 x 64"), ("images", "4x4 patches of 4x6")]
    notes = [text for row, text in tiny_vit(width=62).describe((8, 24)) if row == "note"]
    assert [note.partition(";")[0] for note in notes] == [
        "8 patches an image are few",
        "heads of fewer than 32 dimensions train poorly",
    ]
    mixer = MlpMixer(0, (4, 4), 8, 2, 4, 8)
    assert mixer.describe((16, 16)) == [("model", "2 x 8"), ("images", "4x4 patches of 4x4")]
    assert ResNet(0, (3, 4)).describe((33, 16)) == [("model", "3-4"), ("images", "5x2 features")]  # 33 -> 17 -> 9 -> 5


@pytest.mark.parametrize(
    ("model", "pixels"),
    [
        (tiny_vit(), (12, 30)),  # patches of 4x6
        (tiny_vit(stem="resnet", stem_depths=(1, 1)), (96, 240)),  # of features at stride 8
        (MlpMixer(0, (4, 8)), (12, 40)),
    ],
)
def test_the_pixels_of_a_grid_have_that_grid(model, pixels):
    assert model.pixels((3, 5)) == pixels
    assert model.grid(pixels) == (3, 5)


@pytest.mark.parametrize(
    "model",
    [
        tiny_vit(patch_size=(4, 4)),
        tiny_vit(stem="resnet", patch_size=(1, 1)),
        MlpMixer(3, (4, 4), 8, 1),
        ResNet(3, (1,)),
    ],
)
def test_the_first_layer_is_the_one_that_sees_the_channels(model):
    params = abstract_params(model, (16, 16), channels=5)
    assert params[model.first_layer]["kernel"].shape[2] == 5


def test_a_resolution_meant_for_another_model_becomes_whole_patches():
    assert tiny_vit().suit((15, 3)) == (12, 6)  # patches of 4x6
    assert MlpMixer(0, (4, 8)).suit((15, 30)) == (12, 24)
    assert tiny_vit(stem="resnet").suit((15, 3)) == ResNet(0).suit((15, 3)) == (15, 3)


def test_a_model_that_says_nothing_more_than_its_grid_is_described_by_its_name_alone():
    class Plain(ImageModel):
        num_classes: int = dataclasses.field(metadata=HEAD)

        def grid(self, resolution):
            return resolution

        @nn.compact
        def __call__(self, images, *, train=False):
            pooled = images.mean(axis=(1, 2))
            return Outputs(images, pooled, pooled, nn.Dense(self.num_classes, name="head")(pooled))

    model = Plain(num_classes=2)
    assert (model.describe((8, 8)), model.scan, keys_of_role(Plain, TRAINING)) == ([], False, set())
    assert abstract_params(model, (8, 8))["head"]["kernel"].dtype == jnp.float32
