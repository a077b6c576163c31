"""Few-shot least squares against an implementation of its own: float32, by eigenvectors, as big_vision solves it."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from vit_jax import partition
from vit_jax.data.open import open_source
from vit_jax.evals.base import Bound
from vit_jax.evals.fewshot import FewShot, choose_examples, drawing_order, ridge_predict


def choose(labels, num_classes, shots, seed):
    """The first `shots` of each class's examples, permuted by one generator, class after class."""
    rng = np.random.default_rng(seed)
    return [i for c in range(num_classes) for i in rng.permutation(np.where(labels == c)[0])[:shots]]


def solve(x, y, test_x, num_classes, l2):
    """Scores (m, classes): standardise, append 100, targets +-1, ridge by the eigenvectors of the smaller Gram matrix."""
    mean, std = x.mean(axis=0), x.std(axis=0) + np.float32(1e-5)
    x, test_x = (
        np.concatenate([(z - mean) / std, np.full((len(z), 1), 100.0, np.float32)], axis=1).astype(np.float32)
        for z in (x, test_x)
    )
    targets = np.full((len(y), num_classes), -1, np.float32)
    targets[np.arange(len(y)), y] = 1
    if len(x) >= x.shape[1]:
        eigenvalues, q = np.linalg.eigh(x.T @ x)
        left, right = q, q.T @ x.T @ targets
    else:
        eigenvalues, q = np.linalg.eigh(x @ x.T)
        left, right = x.T @ q, q.T @ targets
    weights = left @ np.diag(1 / (eigenvalues + np.float32(l2))) @ right
    return test_x @ weights


def clusters(n, d, classes, seed=0, scale=1.0):
    """Features around a centre per class, not well apart."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, d))
    y = rng.permutation(np.arange(n) % classes)
    return (centres[y] * scale + rng.standard_normal((n, d))).astype(np.float32), y


@pytest.mark.parametrize("l2", [1024.0, 1.0])
@pytest.mark.parametrize(
    ("n", "d"),
    [(104, 16), (24, 64), (16, 15), (16, 16)],  # more rows than features, fewer, as many with the constant, one fewer
)
def test_predictions_are_those_of_the_eigenvector_solution(n, d, l2):
    x, y = clusters(n, d, 8)
    test_x, test_y = clusters(200, d, 8)
    scores = solve(x, y, test_x, 8, l2)
    found = ridge_predict(x, y, test_x, num_classes=8, l2_reg=l2)
    # Where float32 leaves two classes level, either may win; there are next to none.
    best, second = np.sort(scores, axis=1)[:, -1], np.sort(scores, axis=1)[:, -2]
    clear = best - second > 1e-4 * np.abs(scores).max()
    assert clear.sum() >= 195
    assert found[clear].tolist() == scores.argmax(axis=1)[clear].tolist()
    assert np.mean(found == test_y) > 0.4  # of eight classes


def test_the_constant_feature_is_100_and_is_penalised_with_the_rest():
    # Features (1, 1, -1, -1) are their own standardisation; labels 0, 0, 0, 1. The difference of the two classes' scores at
    # z is 4 z / (4 + 1024) + 100^2 4 / (4 * 100^2 + 1024): zero at z = -250.58. Without a penalty on the constant it would
    # be zero at -257, with a constant of 1 at -1.
    x, y = np.array([[1.0], [1.0], [-1.0], [-1.0]], np.float32), np.array([0, 0, 0, 1])
    test_x = np.array([[-249.0], [-252.0], [1.0]], np.float32)
    assert ridge_predict(x, y, test_x, num_classes=2, l2_reg=1024.0).tolist() == [0, 1, 0]


def test_a_feature_that_never_varies_does_no_harm():
    x, y = clusters(40, 6, 4, scale=3.0)
    test_x, test_y = clusters(80, 6, 4, scale=3.0)
    x[:, 2] = test_x[:, 2] = 5
    found = ridge_predict(x, y, test_x, num_classes=4, l2_reg=1.0)
    assert found.tolist() == solve(x, y, test_x, 4, 1.0).argmax(axis=1).tolist()
    assert np.mean(found == test_y) > 0.8


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shots", [1, 3])
def test_examples_are_chosen_class_by_class_from_one_generator(shots, seed):
    labels = np.random.default_rng(9).integers(0, 5, 60)
    chosen = choose_examples(labels, 5, shots, seed)
    assert chosen.tolist() == choose(labels, 5, shots, seed)
    assert np.bincount(labels[chosen]).tolist() == [shots] * 5


def test_the_examples_of_seed_zero_are_these():
    # numpy.random.default_rng(0).permutation(6) begins 5, 3, 2 (numpy guarantees the stream of permutation).
    assert choose_examples(np.zeros(6, int), 1, 3, 0).tolist() == np.random.default_rng(0).permutation(6)[:3].tolist()


def test_more_shots_contain_the_fewer():
    labels = np.repeat(np.arange(4), 10)
    one, five = choose_examples(labels, 4, 1, 0), choose_examples(labels, 4, 5, 0)
    assert five.reshape(4, 5)[:, 0].tolist() == one.tolist()


def test_a_class_with_too_few_examples_gives_those_it_has():
    labels = np.array([0, 0, 0, 1, 1, 3, 3, 3, 3])
    chosen = choose_examples(labels, 4, 3, 0)
    assert np.bincount(labels[chosen], minlength=4).tolist() == [3, 2, 0, 3]
    assert chosen.tolist() == choose(labels, 4, 3, 0)


def test_examples_are_drawn_from_the_order_in_which_tfds_reads():
    labels, order = np.array([0, 1, 0, 1, 0, 1, 0, 1]), np.array([6, 7, 4, 5, 2, 3, 0, 1])
    found = choose_examples(labels, 2, 2, 5, order)
    assert found.tolist() == order[choose(labels[order], 2, 2, 5)].tolist()
    assert found.tolist() != choose_examples(labels, 2, 2, 5).tolist()


def test_a_set_of_one_file_is_drawn_from_as_it_is_stored(folder, tmp_path):
    source = open_source("digits", "train[:100]", str(tmp_path / "tfds"))
    assert drawing_order(source).tolist() == list(range(100))
    assert drawing_order(open_source(str(folder[0]), "train")) is None


# The evaluator


def stored(path, split):
    """Images and labels in the split's own order, decoded by another library than ours."""
    source = open_source(str(path), split)
    examples = [source.read(index) for index in range(len(source))]
    return np.stack([PIL.Image.open(io.BytesIO(e[0])) for e in examples]), np.array([e[1] for e in examples])


def test_the_evaluator_scores_the_frozen_representation_of_both_splits(folder, forward):
    path = folder[0]
    (train_x, train_y), (test_x, test_y) = stored(path, "train"), stored(path, "test")
    settings = {"train_split": "train", "test_split": "test", "dataset": str(path), "batch_size": 16}
    evaluator = FewShot(**settings, resolution=(7, 7), shots=(1, 5), l2_reg=1.0)
    train_spec, test_spec = evaluator.open()
    assert (train_spec.num_examples, test_spec.num_examples) == (56, 13)
    kernel = jnp.zeros((7 * 7 * 3, 7))
    scores = evaluator.bind(Bound(forward, None, partition.make_mesh(), 7))({"kernel": kernel}).values

    def features(images):
        # Resized to 8/7 of 7, which is what they are, and cut to 7x7: the forward's first twelve values of the crop.
        x = (images[:, :7, :7].reshape(len(images), -1)[:, :12].astype(np.float32) - 127.5) / 127.5
        return x.astype(np.float32)

    expected = {}
    for shots in (1, 5):
        for seed in (0, 1, 2):
            chosen = choose(train_y, 7, shots, seed)
            found = solve(features(train_x)[chosen], train_y[chosen], features(test_x), 7, 1.0).argmax(axis=1)
            expected[f"{shots}shot_seed{seed}"] = np.mean(found == test_y)
        expected[f"{shots}shot"] = np.mean([expected[f"{shots}shot_seed{seed}"] for seed in (0, 1, 2)])
    assert scores == pytest.approx(expected)
    assert len(set(scores.values())) > 3  # seeds and shots make a difference


def test_one_device_and_eight_give_the_same_scores(folder, forward):
    settings = {"train_split": "train", "test_split": "test", "dataset": str(folder[0]), "batch_size": 24}
    found = []
    for count in (1, 8):
        evaluator = FewShot(**settings, resolution=(7, 7), shots=(2,))
        evaluator.open()
        mesh = partition.make_mesh(devices=jax.devices()[:count])
        found.append(evaluator.bind(Bound(forward, None, mesh, 7))({"kernel": jnp.zeros((147, 7))}).values)
    assert found[0] == found[1]
    assert 0 < found[0]["2shot"] < 1


def test_the_defaults_are_the_evaluations_of_the_field():
    evaluator = FewShot(train_split="train", test_split="test")
    assert (evaluator.l2_reg, evaluator.seeds) == (2.0**10, (0, 1, 2))
