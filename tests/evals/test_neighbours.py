"""Votes of nearest neighbours against scikit-learn's, and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from vit_jax import partition
from vit_jax.evals.base import Bound
from vit_jax.evals.neighbours import NearestNeighbours, vote
from vit_jax.types import UserError


@pytest.mark.parametrize("devices", [1, 8])
def test_votes_are_those_of_scikit_learn(devices):
    rng = np.random.default_rng(0)
    x, y, test = rng.standard_normal((90, 5)), rng.integers(0, 4, 90), rng.standard_normal((300, 5))
    mesh = partition.make_mesh(devices=jax.devices()[:devices])
    found = vote((x, y), test, (1, 5, 30), 0.2, 4, mesh)
    for k, classes in zip((1, 5, 30), found, strict=True):
        model = KNeighborsClassifier(
            k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.2), algorithm="brute"
        )
        assert classes.tolist() == model.fit(x, y).predict(test).tolist()


def test_a_near_neighbour_outvotes_two_far_ones_only_at_a_low_temperature():
    # Cosines 1, 0.6 and 0.6: exp(0.4 / t) is above 2 for t below 0.577.
    x, y = np.array([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]]), np.array([0, 1, 1])
    mesh = partition.make_mesh(1, jax.devices()[:1])
    votes = [vote((x, y), np.array([[2.0, 0.0]]), (1, 3, 99), t, 2, mesh)[:, 0].tolist() for t in (0.5, 0.6, 0.001)]
    assert votes == [[0, 0, 0], [0, 1, 1], [0, 0, 0]]


def test_the_evaluator_scores_each_number_of_neighbours(folder, forward):
    (train, train_y), (test, test_y) = folder[1:]
    settings = {
        "train_split": "train",
        "test_split": "test",
        "dataset": str(folder[0]),
        "batch_size": 16,
        "recipe": "eval",
    }
    evaluator = NearestNeighbours(**settings, resolution=(8, 8), neighbours=(1, 3))
    evaluator.open()
    found = evaluator.bind(Bound(forward, None, partition.make_mesh(), 7))({"kernel": jnp.zeros((192, 7))}).values
    features = [(x.reshape(len(x), -1)[:, :12] - 127.5) / 127.5 for x in (train, test)]
    expected = {}
    for k in (1, 3):
        model = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
        expected[f"{k}nn"] = model.fit(features[0], train_y).score(features[1], test_y)
    assert found == pytest.approx(expected | {"num_examples": 13})
    wrong = NearestNeighbours(**settings, resolution=(8, 8), neighbours=(0,))
    with pytest.raises(UserError, match=r"neighbours is \(0,\) and temperature 0.07; expected numbers of 1 or more"):
        wrong.open()
