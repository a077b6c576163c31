"""Canvases of real digits: boxes are exact, splits share no digit, and the written records give them back."""

import cv2
import numpy as np
import pytest

from vit_jax.data.open import open_source
from vit_jax.data.prepare import canvases
from vit_jax.data.prepare.prepare import prepare
from vit_jax.targets import Boxes
from vit_jax.types import UserError


@pytest.fixture(scope="module")
def digits():
    return canvases.read_digits()


def drawn(digits, seeds, split="train"):
    return [canvases.draw_canvas(*digits[split], np.random.default_rng(seed)) for seed in seeds]


def test_a_box_is_the_extent_of_the_ink(digits):
    alone = [canvas for canvas in drawn(digits, range(120)) if len(canvas.kind) == 1]
    assert len(alone) > 5
    for canvas in alone:
        rows, columns = (np.flatnonzero((canvas.image > 127).any(axis=axis)) for axis in (1, 0))
        assert canvas.box.tolist() == [[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]]


def test_canvases_hold_up_to_six_objects_of_all_classes_that_hardly_overlap(digits):
    made = drawn(digits, range(200))
    counts = [len(canvas.kind) for canvas in made]
    assert (min(counts), max(counts)) == (0, 6)
    assert 2 <= counts.count(0) <= 22  # 5% of 200 are empty
    assert set(np.concatenate([canvas.kind for canvas in made])) == set(range(10))
    for canvas in made:
        boxes = canvas.box.tolist()
        assert all(canvases.overlap(a, b) <= 0.1 for i, a in enumerate(boxes) for b in boxes[:i])
        assert all(left >= 0 and top >= 0 and right <= 128 and bottom <= 128 for left, top, right, bottom in boxes)
        # The ink of a scaled digit may be a little smaller.
        assert all(13 <= max(right - left, bottom - top) <= 56 for left, top, right, bottom in boxes)


def test_overlap_by_hand():
    assert canvases.overlap((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert canvases.overlap((0, 0, 2, 2), (2, 0, 4, 2)) == 0


def test_the_splits_share_no_digit(digits):
    images = {split: {image.tobytes() for image in images} for split, (images, _) in digits.items()}
    assert len(digits["train"][0]) + len(digits["test"][0]) == 1797
    assert len(images["train"] & images["test"]) == 0


def test_written_canvases_are_read_back_with_their_boxes(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(canvases, "NUMBER", {"train": 5, "test": 2})
    assert prepare("canvases", data_dir=str(tmp_path)).splits == {"train": 5, "test": 2}
    source = open_source("canvases", "train", str(tmp_path), boxes=True)
    assert isinstance(source.spec.target, Boxes)
    assert source.spec.class_names == tuple("0123456789")
    counts = []
    for data, label, _ in source.read_many(range(5)):
        rng = np.random.default_rng([label.image_id, len(digits["train"][0])])
        expected = canvases.draw_canvas(*digits["train"], rng)
        assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE), expected.image)
        np.testing.assert_array_equal(np.rint(label.box * 128), expected.box)
        np.testing.assert_array_equal(label.kind, expected.kind)
        np.testing.assert_array_equal(label.area, (expected.box[:, 2:] - expected.box[:, :2]).prod(axis=1))
        assert not label.crowd.any()
        counts.append(len(expected.kind))
    assert source.spec.target == Boxes(10, max(counts))
    with pytest.raises(UserError, match="its examples have boxes of objects"):
        open_source("canvases", "train", str(tmp_path))


def test_single_digits_fill_quarter_canvases_and_are_read_back_with_their_class(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(canvases, "SINGLE", {"train": 12, "test": 2})
    assert prepare("canvases/digits_single", data_dir=str(tmp_path)).splits == {"train": 12, "test": 2}
    source = open_source("canvases/digits_single", "train", str(tmp_path))
    rngs = [np.random.default_rng([i, len(digits["train"][0])]) for i in range(12)]
    drawn = [canvases.draw_canvas(*digits["train"], rng, single=True) for rng in rngs]
    expected = {canvas.image.tobytes(): canvas.kind.tolist() for canvas in drawn}
    for data, label, _ in source.read_many(range(12)):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert image.shape == (64, 64)
        rows, columns = (np.flatnonzero((image > 127).any(axis=axis)) for axis in (1, 0))
        assert 13 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 56
        assert expected[image.tobytes()] == [label]
    assert len({kind for (kind,) in expected.values()}) > 3


def test_unknown_and_missing_sources_are_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"no data set canvases/cats; canvases are of digits, digits_single, fashion_mnist"
    ):
        prepare("canvases/cats", data_dir=str(tmp_path))
    with pytest.raises(UserError, match=r"needs Fashion-MNIST's four idx files"):
        prepare("canvases/fashion_mnist", data_dir=str(tmp_path))
