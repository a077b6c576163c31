"""Maps of single images: whose attention they show, and which images are taken."""

import types

import numpy as np

from vit_jax.insight.means import Row
from vit_jax.insight.pictures import Choice, Pictures, from_output
from vit_jax.insight.subject import Tokens
from vit_jax.types import Outputs

JOINT = np.arange(36.0).reshape(1, 6, 6)


def test_maps_are_those_of_the_tokens_that_the_model_answers_with():
    assert from_output(JOINT, Tokens(True, 1, (2, 2), 0)).tolist() == [[[2, 3], [4, 5]]]
    assert from_output(JOINT, Tokens(False, 2, (2, 2), 0)).tolist() == [[[23, 24], [25, 26]]]  # mean of rows 2 to 5
    assert from_output(JOINT, Tokens(True, 0, (1, 3), 2)).tolist() == [[[28, 29, 30]]]  # mean of rows 4 and 5
    # Two heads, over the class token and four patches: half of row 0, a quarter of rows 2 and 5 each; the register is not seen.
    probe = np.array([[[1, 0, 0, 0, 0], [0, 0.5, 0, 0, 0.5]]])
    assert from_output(JOINT, Tokens(True, 1, (2, 2), 0), probe).tolist() == [[[12.5, 13.5], [14.5, 15.5]]]


def test_a_map_does_not_keep_the_attention_that_it_is_read_from():
    assert from_output(JOINT, Tokens(True, 1, (2, 2), 0)).base is None


def test_images_are_evenly_spaced_and_an_unreadable_one_is_replaced_by_the_next():
    subject = types.SimpleNamespace(module=None, params=None, tokens=None, classifies=True, capture=())
    pictures = Pictures(subject, Choice(pictures=3), None, 11)
    image = np.zeros((2, 2, 3), np.uint8)
    outputs = Outputs(None, None, None, np.array([0.0, np.log(3)], np.float32))
    for batch in ((0, 1, 2, 3), (4, 6, 7), (8, 9, 10)):
        pictures.add([Row(i, image, outputs) for i in batch])
    assert pictures.places == [0, 6, 10]
    assert pictures.classes == [1, 1, 1]
    np.testing.assert_allclose(pictures.arrays()["probabilities"], [0.75] * 3)


def test_a_detectors_boxes_are_in_pixels_of_the_image_best_first():
    subject = types.SimpleNamespace(module=None, params=None, tokens=None, classifies=False, capture=())
    pictures = Pictures(subject, Choice(pictures=1), None, 1)
    extra = {
        "class_logits": np.log(np.array([[0.1, 0.2, 0.7], [0.1, 0.6, 0.3]], np.float32)),  # no object last
        "boxes": np.array([[0.5, 0.5, 1, 1], [0.75, 0.25, 0.75, 0.25]], np.float32),
    }
    pictures.add([Row(0, np.zeros((8, 16, 3), np.uint8), Outputs(None, None, None, None, extra=extra))])
    arrays = pictures.arrays()
    assert arrays["boxes"].tolist() == [[[6, 1, 16, 3], [0, 0, 16, 8]]]  # the first ends at the image's edge
    assert arrays["box_classes"].tolist() == [[1, 1]]
    np.testing.assert_allclose(arrays["box_scores"], [[0.6, 0.2]], rtol=1e-6)
    assert {name: x.dtype.name for name, x in arrays.items() if name != "images"} == {
        "boxes": "float32",
        "box_classes": "int32",
        "box_scores": "float32",
    }
