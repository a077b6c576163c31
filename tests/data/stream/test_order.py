"""The order of training examples: permutations of seed and epoch alone, entered anywhere."""

import itertools

import numpy as np
import pytest

from vit_jax.data.stream.order import TrainKeys, shuffle, size_at


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 17, 1000, 4096])
def test_an_epoch_is_a_permutation(size):
    for epoch in (0, 1, 12345):
        order = shuffle(np.arange(size), np.full(size, epoch), size, seed=3)
        assert sorted(order.tolist()) == list(range(size))


@pytest.mark.slow
def test_every_order_of_five_comes_up_about_equally_often():
    orders = [tuple(shuffle(np.arange(5), np.full(5, epoch), 5, seed=0).tolist()) for epoch in range(6000)]
    counts = np.array([orders.count(order) for order in set(orders)])
    assert len(counts) == 120
    assert counts.min() > 20  # 50 expected, standard deviation 7
    assert counts.max() < 95


def test_epochs_and_seeds_and_neighbours_are_unrelated():
    size = 20_000
    orders = [
        shuffle(np.arange(size), np.full(size, epoch), size, seed) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    for i, order in enumerate(orders):
        others = [np.arange(size), np.roll(order, 1), *orders[:i]]
        # The correlation of two random orders has a standard deviation of 1 / sqrt(size) = 0.007.
        assert all(abs(np.corrcoef(order, other)[0, 1]) < 0.03 for other in others)
        # One neighbour a data set on average stays a neighbour, whatever the size.
        assert (np.diff(order) == 1).sum() < 8


def test_the_order_is_this_one_in_every_version():
    # A run that is restarted with a newer version must resume with the same examples: change these with a note to users.
    assert shuffle(np.arange(8), np.zeros(8, int), 8, seed=0).tolist() == [6, 4, 1, 7, 5, 0, 2, 3]
    first = TrainKeys(1_281_167, 4, 0, 1, seed=42)[1_000_000]
    assert first.tolist() == [[3, 982776], [3, 215880], [3, 1005309], [3, 537659]]


def test_a_batch_that_straddles_epochs_takes_from_both():
    keys = np.concatenate([TrainKeys(10, 4, 0, 1, seed=5)[step] for step in range(5)])
    assert keys[:, 0].tolist() == [0] * 10 + [1] * 10
    assert sorted(keys[:10, 1].tolist()) == sorted(keys[10:, 1].tolist()) == list(range(10))


def test_every_round_of_steps_takes_each_size_once_and_all_orders_are_equally_likely():
    rounds = [tuple(size_at(3 * turn + place, 3, seed=0) for place in range(3)) for turn in range(600)]
    counts = [rounds.count(order) for order in itertools.permutations(range(3))]
    assert sum(counts) == 600  # no other rounds
    assert min(counts) > 65  # 100 expected, standard deviation 9
    assert max(counts) < 135
    assert [size_at(step, 1, seed=0) for step in range(3)] == [0, 0, 0]
    assert rounds[:20] != [tuple(size_at(3 * turn + place, 3, seed=1) for place in range(3)) for turn in range(20)]


def test_the_sizes_are_these_in_every_version():
    # A run that is restarted with a newer version must resume with the same sizes: change these with a note to users.
    assert [size_at(step, 3, seed=0) for step in range(9)] == [0, 2, 1, 1, 2, 0, 1, 0, 2]
    assert [size_at(step, 5, seed=42) for step in range(1_000_000, 1_000_005)] == [4, 3, 0, 1, 2]
