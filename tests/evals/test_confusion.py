"""The confusion matrix against scikit-learn's, and its picture."""

import numpy as np
from sklearn.metrics import confusion_matrix

from vit_jax.evals import confusion


def test_counts_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    label, predicted = rng.integers(0, 6, 200, np.int32), rng.integers(0, 7, 200, np.int32)
    label[label == 3] = 2  # a class without examples keeps its row
    known = predicted < 7
    expected = confusion_matrix(label, predicted, labels=range(7))
    np.testing.assert_array_equal(confusion.count(label[known], predicted[known], 7), expected)


def test_predictions_of_classes_that_the_data_lacks_have_a_column_of_their_own():
    counts = confusion.count(np.array([0, 1, 1]), np.array([0, 7, 9]), 2)
    assert counts.tolist() == [[1, 0, 0], [0, 0, 2]]


def test_the_picture_has_a_cell_for_each_pair_and_the_colour_of_its_share():
    picture = confusion.draw(np.array([[9, 0], [0, 9]]), ("a $x", "\u72ac"), "test: top-1 100.0% of 18")
    assert (picture.dtype, picture.shape[2]) == (np.uint8, 3)
    full, empty = (253, 231, 36), (68, 1, 84)  # viridis at 1 and 0; its bar of colours has a row of either
    rows, columns = (np.flatnonzero((picture == full).all(axis=2).sum(axis=axis) > 50) for axis in (1, 0))
    top, bottom, left, right = rows[0] + 5, rows[-1] - 5, columns[0] + 5, columns[-1] - 5
    corners = [[tuple(picture[y, x].tolist()) for x in (left, right)] for y in (top, bottom)]
    assert corners == [[full, empty], [empty, full]]
