"""Means over images, one image at a time, by hand."""

import types

import numpy as np
import pytest

from vit_jax.insight.means import Means, Row, norm_names
from vit_jax.insight.subject import Tokens
from vit_jax.types import Outputs


def subject(tokens, capture):
    module = types.SimpleNamespace(pixels=lambda grid: (8, 8))
    return types.SimpleNamespace(module=module, tokens=tokens, capture=capture)


def test_norms_are_means_over_images_of_medians_maxima_and_special_tokens():
    tokens = Tokens(class_token=True, registers=2, grid=(1, 3), after=1)
    assert norm_names(tokens) == [
        "patches, median",
        "patches, largest",
        "class token",
        "registers, mean",
        "detection tokens, mean",
    ]
    lengths = np.array(
        [[7.0, 2, 4, 1, 5, 30, 9], [1, 1, 1, 2, 2, 2, 3]]
    )  # two images: class, registers, patches, detection
    rows = [Row(i, None, Outputs(None, None, None, None, layers=(x[:, None],))) for i, x in enumerate(lengths)]
    means = Means()
    for row in rows:
        means.add(subject(tokens, ("layers",)), [row])
    assert means.count == 2
    assert means.arrays()["norms"].tolist() == [[3.5, 16, 4, 2, 6]]


def test_distance_leaves_detection_tokens_out_and_entropy_counts_all():
    tokens = Tokens(class_token=False, registers=0, grid=(1, 2), after=1)
    weights = np.array([[[0.25, 0.25, 0.5], [0, 1, 0], [0, 1, 0]]])  # a head, n n
    row = Row(0, None, Outputs(None, None, None, None, layers=(np.ones((3, 1)),), attention=(weights,)))
    means = Means()
    means.add(subject(tokens, ("layers", "attention")), [row, row])
    assert means.arrays()["distance"].tolist() == [[2.0]]  # (8 / 2 + 0) / 2 pixels
    assert means.arrays()["entropy"][0, 0] == pytest.approx(1.5 * np.log(2) / 3)


def test_an_image_in_which_a_head_attends_to_no_patch_does_not_count_for_its_distance():
    tokens = Tokens(class_token=True, registers=0, grid=(1, 2), after=0)
    rows = []
    for weights in ([[1, 0, 0]] * 3, [[1, 0, 0], [0, 0, 1], [0, 0, 1]]):
        weights = np.array([weights, [[1, 0, 0]] * 3], float)  # the second head never attends to patches
        outputs = Outputs(None, None, None, None, layers=(np.ones((3, 1)),), attention=(weights,))
        rows.append(Row(0, None, outputs))
    means = Means()
    means.add(subject(tokens, ("layers", "attention")), rows)
    np.testing.assert_array_equal(means.arrays()["distance"], [[4, np.nan]])  # (8 + 0) / 2 pixels
