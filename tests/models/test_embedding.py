"""Patches: how an image is cut into them, and what is said of one that cannot be."""

import pytest
from tiny import tiny_vit

from vit_jax.models import build
from vit_jax.types import UserError


def test_an_image_the_patch_does_not_divide_is_an_error_that_names_a_size():
    with pytest.raises(UserError, match=r"image of 10x12 pixels .* patch of 4x6; .* for example 8x12"):
        build.abstract_params(tiny_vit(), (10, 12))
    with pytest.raises(UserError, match=r"image of 8x2 pixels .* for example 8x6"):
        build.abstract_params(tiny_vit(), (8, 2))


def test_a_feature_map_the_patch_does_not_divide_is_an_error_in_pixels_of_the_image():
    # 100 pixels are 25 positions of a stem of stride 4; three patches of 8 positions are 96 pixels.
    hybrid = tiny_vit(stem="resnet", stem_width=4, patch_size=(8, 8))
    with pytest.raises(UserError, match=r"feature map of 25x8 positions .* patch of 8x8; .* for example 96x32"):
        build.abstract_params(hybrid, (100, 32))
    with pytest.raises(UserError, match=r"feature map of 4x5 positions .* patch of 8x8; .* for example 64x64"):
        build.abstract_params(tiny_vit(stem="resnet", stem_width=4, stem_depths=(1, 1), patch_size=(8, 8)), (32, 40))
