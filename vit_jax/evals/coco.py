"""COCO's scores of detections in numpy: average precision and recall over classes, overlaps, sizes and numbers of detections.

Arithmetic and order are those of `pycocotools.cocoeval.COCOeval` for boxes, with which the tests compare it. A detection takes
the free object of its class in its image with the largest overlap; crowds, and objects whose area lies outside a range, count
neither way, nor do the detections that take them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

OVERLAPS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = (1, 10, 100)  # detections that count, for each image and class
# Areas in pixels of the image as stored; both ends belong to a range.
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}


class Objects(NamedTuple):
    """The objects of a split, n in all.

    Args:
      image: int (n,), which image each is in.
      kind: int (n,), its class.
      box: float (n, 4), left, top, width, height in pixels.
      area: float (n,), pixels; of a segment where the data set has one, so it may differ from width x height.
      crowd: bool (n,), whether it stands for many objects.
    """

    image: np.ndarray
    kind: np.ndarray
    box: np.ndarray
    area: np.ndarray
    crowd: np.ndarray


class Detections(NamedTuple):
    """The detections on a split, n in all; fields as in `Objects`, and the score of each, float (n,)."""

    image: np.ndarray
    kind: np.ndarray
    box: np.ndarray
    score: np.ndarray


class Table(NamedTuple):
    """The figures that all scores are means of; -1 where a class has no object in a range of areas.

    Args:
      precision: float (overlaps, recalls, classes, areas, most).
      recall: float (overlaps, classes, areas, most).
    """

    precision: np.ndarray
    recall: np.ndarray


def as_pairs(rows: Mapping[str, np.ndarray]) -> tuple[Objects, Detections]:
    """The objects and detections of n images, from arrays with a row for each image; boxes are corners in pixels.

    Args:
      rows: `score`, `kind` (n, q), `box` (n, q, 4), `true_kind`, `true_valid`, `true_crowd` (n, m), `true_box` (n, m, 4), and
        `true_area` (n, m), 0 for that of the box.
    """
    n, q = rows["score"].shape
    found = Detections(
        np.repeat(np.arange(n), q),
        rows["kind"].reshape(-1),
        as_sides(rows["box"].reshape(-1, 4)),
        rows["score"].reshape(-1),
    )
    image, at = np.nonzero(rows["true_valid"])
    box = as_sides(rows["true_box"][image, at])
    area = rows["true_area"][image, at].astype(np.float64)
    area = np.where(area > 0, area, box[:, 2:].prod(axis=-1))
    return Objects(image, rows["true_kind"][image, at], box, area, rows["true_crowd"][image, at] > 0), found


def as_sides(corners: np.ndarray) -> np.ndarray:
    """Left, top, right, bottom to left, top, width, height, in float64."""
    corners = corners.astype(np.float64)
    return np.concatenate([corners[..., :2], corners[..., 2:] - corners[..., :2]], axis=-1)


def overlaps(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Intersection over union of each box with each other one; over the box's own area where the other is a crowd.

    Args:
      boxes: float (n, 4), left, top, width, height.
      others: float (m, 4).
      crowd: bool (m,).
    """
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, :2] + boxes[:, None, 2:], others[None, :, :2] + others[None, :, 2:])
    size = high - low  # n m 2
    shared = np.where((size > 0).all(axis=-1), size.prod(axis=-1), 0.0)
    area = boxes[:, 2:].prod(axis=-1)[:, None]
    union = np.where(crowd, area, area + others[:, 2:].prod(axis=-1) - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def tabulate(
    objects: Objects,
    detections: Detections,
    num_classes: int,
    *,
    areas: Mapping[str, tuple[float, float]] = AREAS,
    most: Sequence[int] = MOST,
) -> Table:
    """Precision and recall of every class, overlap, range of areas and number of detections; COCO's own ones by default."""
    shape = len(OVERLAPS), len(RECALLS), num_classes, len(areas), len(most)
    precision, recall = -np.ones(shape), -np.ones((shape[0], *shape[2:]))
    mine, theirs = (_by_class(x.image, x.kind, num_classes) for x in (objects, detections))
    for kind in range(num_classes):
        images = np.unique(np.concatenate([objects.image[mine[kind]], detections.image[theirs[kind]]]))
        there, found = _by_image(objects.image, mine[kind], images), _by_image(detections.image, theirs[kind], images)
        pairs = []
        for truth, guess in zip(there, found, strict=True):
            guess = guess[np.argsort(-detections.score[guess], kind="stable")[: most[-1]]]
            ious = overlaps(detections.box[guess], objects.box[truth], objects.crowd[truth])
            pairs.append((truth, guess, ious))
        for place, limits in enumerate(areas.values()):
            matched = [_match(objects, detections, *pair, limits) for pair in pairs]
            for number, limit in enumerate(most):
                found_figures = _curve(matched, limit)
                if found_figures is not None:
                    precision[:, :, kind, place, number], recall[:, kind, place, number] = found_figures
    return Table(precision, recall)


def _by_class(image: np.ndarray, kind: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """Rows of each class, by image and then as given."""
    order = np.lexsort((image, kind))
    return np.split(order, np.searchsorted(kind[order], np.arange(1, num_classes)))


def _by_image(image: np.ndarray, rows: np.ndarray, images: np.ndarray) -> list[np.ndarray]:
    """`rows`, which are sorted by image, split into those of each of `images`."""
    return np.split(rows, np.searchsorted(image[rows], images[1:])) if len(images) else []


class _Matched(NamedTuple):
    """The outcome for one image and class: scores (d,), hits and neutral bool (overlaps, d), and the number of objects."""

    score: np.ndarray
    hit: np.ndarray
    neutral: np.ndarray
    objects: int


def _match(
    objects: Objects,
    detections: Detections,
    truth: np.ndarray,
    guess: np.ndarray,
    ious: np.ndarray,
    limits: tuple[float, float],
) -> _Matched:
    """Gives each detection of an image, best first, the best object that is still free, at every threshold of overlap."""
    low, high = limits
    outside = objects.crowd[truth] | (objects.area[truth] < low) | (objects.area[truth] > high)
    order = np.argsort(outside, kind="stable")  # those that count come first
    ignored, crowd, ious = outside[order], objects.crowd[truth][order], ious[:, order]
    area = detections.box[guess, 2:].prod(axis=-1)
    shape = len(OVERLAPS), len(guess)
    hit, neutral = np.zeros(shape, bool), np.zeros(shape, bool)
    if not len(truth):  # the usual case: most of a model's guesses are of classes that the image lacks
        return _Matched(detections.score[guess], hit, neutral | (area < low) | (area > high), 0)
    for t, threshold in enumerate(OVERLAPS):
        free = np.ones(len(order), bool)
        for d in range(len(guess)):
            may = (free | crowd) & (ious[d] >= min(threshold, 1 - 1e-10))
            # An ignored object is taken only if no other can be; of equal overlaps the last is.
            choice = may & ~ignored if (may & ~ignored).any() else may
            if not choice.any():
                neutral[t, d] = not low <= area[d] <= high
                continue
            best = int(np.flatnonzero(choice & (ious[d] == ious[d][choice].max()))[-1])
            free[best], hit[t, d], neutral[t, d] = False, True, ignored[best]
    return _Matched(detections.score[guess], hit, neutral, int((~ignored).sum()))


def _curve(matched: list[_Matched], limit: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Precision at each recall (overlaps, recalls), and the last recall (overlaps,), of one class; None without objects."""
    count = sum(image.objects for image in matched)
    if not count:
        return None
    order = np.argsort(-np.concatenate([image.score[:limit] for image in matched]), kind="stable")
    hit = np.concatenate([image.hit[:, :limit] for image in matched], axis=1)[:, order]
    neutral = np.concatenate([image.neutral[:, :limit] for image in matched], axis=1)[:, order]
    precision, last = np.zeros((len(OVERLAPS), len(RECALLS))), np.zeros(len(OVERLAPS))
    good, bad = np.cumsum(hit & ~neutral, axis=1, dtype=float), np.cumsum(~hit & ~neutral, axis=1, dtype=float)
    for t in range(len(OVERLAPS)):
        recall = good[t] / count
        last[t] = recall[-1] if len(recall) else 0.0
        falling = np.maximum.accumulate((good[t] / (good[t] + bad[t] + np.spacing(1)))[::-1])[::-1]
        at = np.searchsorted(recall, RECALLS, side="left")
        precision[t, at < len(recall)] = falling[at[at < len(recall)]]
    return precision, last


def summarize(table: Table) -> dict[str, float]:
    """COCO's twelve numbers in COCO's order; -1 where a range of areas has no object at all."""

    def mean(values: np.ndarray) -> float:
        return float(values[values > -1].mean()) if (values > -1).any() else -1.0

    at = {"all": 0, "small": 1, "medium": 2, "large": 3}
    scores = {"ap": mean(table.precision[..., 0, 2])}
    scores |= {f"ap{round(100 * OVERLAPS[t])}": mean(table.precision[t, :, :, 0, 2]) for t in (0, 5)}
    scores |= {f"ap_{name}": mean(table.precision[..., at[name], 2]) for name in list(AREAS)[1:]}
    scores |= {f"ar{limit}": mean(table.recall[:, :, 0, i]) for i, limit in enumerate(MOST)}
    return scores | {f"ar_{name}": mean(table.recall[:, :, at[name], 2]) for name in list(AREAS)[1:]}


def score_classes(table: Table) -> Mapping[str, np.ndarray]:
    """`ap` and `ap50` of each class, float (classes,); NaN for a class without objects."""
    precision = table.precision[..., 0, 2]  # overlaps recalls classes
    each = {"ap": precision.mean(axis=(0, 1)), "ap50": precision[0].mean(axis=0)}
    return {name: np.where(values > -1, values, np.nan) for name, values in each.items()}
