"""COCO's scores against pycocotools, and against values by hand."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vit_jax.evals.coco import Detections, Objects, overlaps, score_classes, summarize, tabulate

NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
NAMES += ("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")


def random_boxes(rng: np.random.Generator, n: int, largest: int = 150) -> np.ndarray:
    return np.concatenate([rng.integers(0, 100, (n, 2)), rng.integers(1, largest, (n, 2))], axis=1).astype(float)


def random_set(seed: int, *, images: int, classes: int, crowds: float, ties: bool, guesses: int, largest: int = 150):
    """Objects on two images in three, and detections near them or anywhere."""
    rng = np.random.default_rng(seed)
    n = images * 4
    image = rng.integers(0, max(1, images * 2 // 3), n)
    box = random_boxes(rng, n, largest)
    area = box[:, 2:].prod(axis=1) * rng.uniform(0.5, 1.0, n)  # of segments
    objects = Objects(image, rng.integers(0, classes, n), box, area, rng.random(n) < crowds)
    source = rng.integers(0, n, guesses)
    near = rng.random(guesses) < 0.7
    shaken = np.maximum(objects.box[source] + rng.integers(-6, 7, (guesses, 4)), [0, 0, 1, 1])
    score = rng.random(guesses).round(1) if ties else rng.random(guesses)
    detections = Detections(
        np.where(near, objects.image[source], rng.integers(0, images, guesses)),
        np.where(near, objects.kind[source], rng.integers(0, classes, guesses)),
        np.where(near[:, None], shaken, random_boxes(rng, guesses, largest)),
        score,
    )
    return objects, detections


def by_pycocotools(objects: Objects, detections: Detections, images: int, classes: int):
    truth, found = COCO(), COCO()
    base = {"images": [{"id": i} for i in range(images)], "categories": [{"id": k} for k in range(classes)]}
    rows = zip(objects.image, objects.kind, objects.box, objects.area, objects.crowd, strict=True)
    annotations = [
        {
            "id": j + 1,
            "image_id": int(i),
            "category_id": int(k),
            "bbox": b.tolist(),
            "area": float(a),
            "iscrowd": int(c),
        }
        for j, (i, k, b, a, c) in enumerate(rows)
    ]
    results = [
        {"id": j + 1, "image_id": int(i), "category_id": int(k), "bbox": b.tolist(), "score": float(s)}
        | {"area": float(b[2] * b[3]), "iscrowd": 0}
        for j, (i, k, b, s) in enumerate(zip(*detections, strict=True))
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        for coco, rows in ((truth, annotations), (found, results)):
            coco.dataset = {**base, "annotations": rows}
            coco.createIndex()
        scored = COCOeval(truth, found, "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return scored


@pytest.mark.parametrize(
    ("seed", "images", "classes", "crowds", "ties", "guesses"),
    [
        (0, 12, 3, 0.0, False, 200),
        (1, 12, 3, 0.3, True, 200),
        (2, 3, 1, 0.2, True, 900),  # more than 100 detections of a class in an image
        (3, 9, 5, 0.5, False, 4),
        (4, 30, 2, 0.1, True, 300),
        (5, 6, 2, 0.0, False, 0),
    ],
)
def test_all_scores_are_those_of_pycocotools(seed, images, classes, crowds, ties, guesses):
    objects, detections = random_set(seed, images=images, classes=classes, crowds=crowds, ties=ties, guesses=guesses)
    expected = by_pycocotools(objects, detections, images, classes)
    table = tabulate(objects, detections, classes)
    np.testing.assert_array_equal(table.precision, expected.eval["precision"])
    np.testing.assert_array_equal(table.recall, expected.eval["recall"])
    scores = summarize(table)
    assert tuple(scores) == NAMES
    np.testing.assert_allclose(list(scores.values()), expected.stats, rtol=1e-12)


def test_equal_overlaps_and_areas_at_a_border_are_settled_as_pycocotools_does():
    box = np.array([[0, 0, 32, 32], [0, 0, 32, 32], [0, 0, 96, 96], [50, 50, 10, 10]], float)
    image, kind = np.zeros(4, int), np.zeros(4, int)
    objects = Objects(image, kind, box, box[:, 2:].prod(axis=1), np.array([False, True, False, True]))
    detections = Detections(image, kind, box[[0, 0, 2, 3]], np.array([0.5, 0.5, 0.5, 0.9]))
    expected = by_pycocotools(objects, detections, 1, 1)
    np.testing.assert_allclose(list(summarize(tabulate(objects, detections, 1)).values()), expected.stats, rtol=1e-12)


def test_a_detection_that_is_half_right_scores_by_hand():
    objects = Objects(*(np.array(x) for x in ([0, 1], [0, 1], [[0, 0, 10, 10.0]] * 2, [100.0] * 2, [False] * 2)))
    detections = Detections(*(np.array(x) for x in ([0], [0], [[0, 0, 10, 8.0]], [0.9])))  # overlap 0.8
    table = tabulate(objects, detections, 3)
    scores = summarize(table)
    # Class 0 is found at 0.5 to 0.8, seven thresholds of ten; class 1 never; class 2 has no object and does not count.
    assert scores["ap50"] == pytest.approx(0.5)
    assert scores["ap"] == pytest.approx(0.7 / 2)
    assert scores["ap_large"] == -1
    each = score_classes(table)
    np.testing.assert_allclose(each["ap"], [0.7, 0, np.nan])
    np.testing.assert_allclose(each["ap50"], [1, 0, np.nan])


def test_a_crowd_is_compared_by_the_share_of_the_detection_inside_it():
    box, crowd = np.array([[0, 0, 2, 2.0]]), np.array([[1, 0, 10, 10.0]])
    assert overlaps(box, crowd, np.array([True]))[0, 0] == 0.5  # 2 of 4
    assert overlaps(box, crowd, np.array([False]))[0, 0] == pytest.approx(2 / 102)
