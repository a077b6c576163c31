"""The evaluator of detections, on a data set in memory and a model that knows the answers."""

import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import partition
from vit_jax.data import open as data_open
from vit_jax.data.source import Source
from vit_jax.evals.base import Bound
from vit_jax.evals.detection import Detection
from vit_jax.targets import Boxes, BoxLabel
from vit_jax.types import DatasetSpec, Outputs, UserError

H, W, N = 64, 128, 5
BOX = np.array([0.25, 0.25, 0.75, 0.75], np.float32)  # 64 x 32 pixels


class Squares(Source):
    """Images of one object each, whose class is the image's number modulo 3; the last has none. Class 2 is a crowd."""

    def __init__(self):
        self.spec = DatasetSpec("squares", "test", N, Boxes(4, most=2), ("a", "b", "c", "d"), (H, W, 3))

    def read(self, index):
        one = np.ones(int(index < N - 1), np.float32)
        kind = np.full(len(one), index % 3, np.int32)
        return (
            bytes([index]),
            BoxLabel(BOX[None][: len(one)], kind, one, 10 + index, (0, 0), (kind == 2) * one, 0 * one),
            str(index),
        )

    @staticmethod
    def decode(data):
        return np.full((H, W, 3), data[0], np.uint8)


def score(forward, *, recipe="eval", resolution=(32, 32), num_classes=4, monkeypatch=None):
    monkeypatch.setitem(data_open.FORMATS, "squares", lambda rest, split: Squares())
    evaluator = Detection(dataset="squares:", split="test", resolution=resolution, recipe=recipe, batch_size=8)
    evaluator.open()
    model = Bound(forward, None, partition.make_mesh(), num_classes)
    return evaluator.bind(model)(None)


def answer(images, box, *, classes=4):
    """Query 0 knows the class, from the pixels of the middle, and says `box` (centre and size); query 1 sees nothing."""
    number = images[:, 10, 16, 0].astype(jnp.int32)
    logits = jnp.full((len(images), 2, classes + 1), -20.0).at[:, 1, classes].set(20.0)
    logits = logits.at[jnp.arange(len(images)), 0, number % 3].set(3.0).at[:, 0, classes].set(0.0)
    boxes = jnp.broadcast_to(jnp.asarray(box, jnp.float32), (len(images), 2, 4))
    return Outputs(None, None, None, None, extra={"class_logits": logits, "boxes": boxes})


def test_a_model_that_knows_all_boxes_scores_one(monkeypatch):
    scores = score(lambda params, images: answer(images, [0.5, 0.5, 0.5, 0.5]), monkeypatch=monkeypatch)
    values = scores.values
    # The image without objects has a detection of class 1, which comes after the right ones of equal score.
    assert values["num_examples"] == N
    assert values["ap"] == values["ap50"] == pytest.approx(1.0)
    assert values["ap_medium"] == pytest.approx(1.0)  # 2,048 pixels
    assert (values["ap_small"], values["ap_large"]) == (-1, -1)
    assert {name for name in values if name.startswith("ap50_of")} == {
        "ap50_of_a",
        "ap50_of_b",
    }  # of c there is a crowd alone
    np.testing.assert_allclose(scores.examples["box"][0, 0], [32, 16, 96, 48], atol=1e-4)
    assert scores.examples["image_id"].tolist() == [10, 11, 12, 13, 14]
    assert scores.examples["index"].tolist() == [0, 1, 2, 3, 4]


def test_a_padded_canvas_is_undone(monkeypatch):
    # 64 x 128 fits into 32 x 32 as 16 x 32: the object lies in the upper half.
    def forward(params, images):
        return answer(images, [0.5, 0.25, 0.5, 0.25])

    scores = score(forward, recipe="detect_eval", monkeypatch=monkeypatch)
    assert scores.values["ap"] == pytest.approx(1.0)
    np.testing.assert_allclose(scores.examples["box"][0, 0], [32, 16, 96, 48], atol=1e-4)


def test_a_box_that_overlaps_by_half_counts_at_the_lowest_threshold_alone(monkeypatch):
    scores = score(
        lambda params, images: answer(images, [0.5, 0.5, 0.5, 0.27]), monkeypatch=monkeypatch
    )  # overlap 0.54
    assert scores.values["ap50"] == pytest.approx(1.0)
    assert scores.values["ap"] == pytest.approx(0.1)
    assert (scores.values["ap_of_a"], scores.values["ap50_of_a"]) == pytest.approx((0.1, 1.0))


def test_a_model_with_fewer_classes_is_refused(monkeypatch):
    with pytest.raises(UserError, match="squares has 4 classes and the model scores 2"):
        score(None, num_classes=2, monkeypatch=monkeypatch)
