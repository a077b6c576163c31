"""Patches: how an image is cut into them, and what is said of one that cannot be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from tiny import tiny_vit

from vit_jax.models import build
from vit_jax.models.embedding import PatchEmbedding, describe_patches, whole_patches
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


@pytest.mark.parametrize("patch", [(4, 6), (2, 2), (8, 12)])
def test_patches_are_those_of_a_convolution_whose_stride_is_its_kernel(patch):
    layer = PatchEmbedding(5, patch, jnp.dtype("float32"))
    rng = np.random.default_rng(0)
    images = rng.standard_normal((2, 8, 12, 3)).astype(np.float32)
    kernel = rng.standard_normal((*patch, 3, 5)).astype(np.float32)
    bias = rng.standard_normal(5).astype(np.float32)
    found = layer.apply({"params": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}}, jnp.asarray(images))
    # SciPy correlates a channel at a time; patches begin at every multiple of the stride.
    expected = np.zeros((2, 8 // patch[0], 12 // patch[1], 5))
    for b, c, d in np.ndindex(2, 3, 5):
        whole = scipy.signal.correlate2d(images[b, ..., c].astype(np.float64), kernel[..., c, d], "valid")
        expected[b, ..., d] += whole[:: patch[0], :: patch[1]]
    np.testing.assert_allclose(found, expected + bias, rtol=1e-5, atol=1e-5)


def test_bfloat16_is_what_is_computed_and_not_what_is_stored():
    layer = PatchEmbedding(512, (8, 8), jnp.dtype("bfloat16"))
    images = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    found, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), images)
    assert found.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("resolution", "patch", "whole"),
    [
        ((224, 224), (16, 16), (224, 224)),
        ((225, 239), (16, 16), (224, 224)),
        ((8, 30), (14, 14), (14, 28)),
        ((7, 7), (4, 6), (4, 6)),
    ],
)
def test_a_resolution_becomes_the_largest_of_whole_patches_that_fits(resolution, patch, whole):
    assert whole_patches(resolution, patch) == whole


def test_few_patches_are_noted():
    assert describe_patches((16, 16), (14, 14)) == [("images", "14x14 patches of 16x16")]
    (row, note) = describe_patches((8, 4), (3, 5))
    assert row == ("images", "3x5 patches of 8x4")
    assert note == ("note", "15 patches an image are few; a smaller model.patch_size usually does better")
    assert len(describe_patches((8, 8), (4, 4))) == 1  # 16 are enough
