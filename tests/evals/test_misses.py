"""Errors of a detector counted by hand, and the sheet of its worst images."""

import numpy as np

from vit_jax.evals.misses import CAPTION, CELL, GAP, OBJECT, count_errors, draw_worst

LEFT, RIGHT = (0, 0, 10, 10), (20, 0, 30, 10)


def rows(*images):
    """Arrays of images, each ([(box, class, crowd)], [(box, class, score)]), padded to two of both."""
    n = len(images)
    held = {"index": np.arange(n) + 5, "score": np.zeros((n, 2)), "kind": np.zeros((n, 2), int)}
    held |= {"box": np.zeros((n, 2, 4)), "true_box": np.zeros((n, 2, 4)), "true_kind": np.zeros((n, 2), int)}
    held |= {"true_valid": np.zeros((n, 2)), "true_crowd": np.zeros((n, 2))}
    for i, (objects, found) in enumerate(images):
        for j, (box, kind, crowd) in enumerate(objects):
            held["true_box"][i, j], held["true_kind"][i, j] = box, kind
            held["true_valid"][i, j], held["true_crowd"][i, j] = 1, crowd
        for j, (box, kind, score) in enumerate(found):
            held["box"][i, j], held["kind"][i, j], held["score"][i, j] = box, kind, score
    return held


IMAGES = rows(
    ([(LEFT, 0, 0), (RIGHT, 1, 0)], [(LEFT, 0, 0.9), (RIGHT, 1, 0.6)]),  # both found
    ([(LEFT, 0, 0), (RIGHT, 1, 0)], [(LEFT, 1, 0.9), (RIGHT, 1, 0.4)]),  # a wrong class, and one that is not sure
    ([(LEFT, 0, 0)], [(LEFT, 0, 0.9), (LEFT, 0, 0.8)]),  # found twice
    ([(LEFT, 0, 1)], [(LEFT, 0, 0.9), (LEFT, 0, 0.8)]),  # a crowd
    ([], []),
)


def test_errors_are_objects_that_nothing_finds_and_detections_of_nothing():
    missed, false = count_errors(IMAGES)
    assert missed.tolist() == [0, 2, 0, 0, 0]
    assert false.tolist() == [0, 1, 1, 0, 0]


def test_the_sheet_shows_images_with_errors_alone_the_worst_first():
    read = []

    def image(index):
        read.append(index)
        return np.zeros((40, 40, 3), np.uint8)

    sheet = draw_worst(IMAGES, ("a", "b"), image, most=4)
    assert read == [6, 7]
    assert sheet.shape == (CAPTION + CELL + CAPTION + GAP, 2 * (CELL + GAP), 3)
    blue = tuple(int(OBJECT[i : i + 2], 16) for i in (1, 3, 5))
    x, y = CELL * 25 // 40, CELL * 10 // 40
    assert tuple(sheet[2 * CAPTION + y, x]) == blue  # the lower edge of the object that nothing finds


def test_a_detector_without_errors_gets_an_empty_sheet():
    def image(index):
        raise AssertionError

    assert draw_worst(rows(([], [])), (), image, most=3).shape[0] == CAPTION
