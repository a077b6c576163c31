"""Mean average precision against scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from vit_jax import partition
from vit_jax.evals.base import Bound
from vit_jax.evals.classification import Classification
from vit_jax.evals.multilabel import MultiLabel, average_precision
from vit_jax.train.objectives import sigmoid_cross_entropy, softmax_cross_entropy
from vit_jax.types import UserError

NAMES = [f"c{i}" for i in range(7)]


@pytest.mark.parametrize("levels", [3, 1000])  # with many equal scores, and with few
def test_average_precision_is_that_of_scikit_learn(levels):
    rng = np.random.default_rng(levels)
    for n in (1, 2, 50):
        scores, right = rng.integers(0, levels, n) / 7, rng.random(n) < 0.4
        right[rng.integers(n)] = True
        assert average_precision(scores, right) == pytest.approx(average_precision_score(right, scores))


@pytest.fixture
def listed(folder):
    """(list of the folder's test images with sets of labels, images in the list's reading order, labels bool (13, 7))."""
    path, _, (images, _) = folder
    files = sorted((path / "test").glob("*/*.png"))
    rng = np.random.default_rng(5)
    label = rng.random((13, 7)) < 0.35
    label[:, 6] = False  # a class of the list that no image of the split has
    label[4] = False  # an image without any
    lines = [
        f"{file.relative_to(path)},{';'.join(NAMES[c] for c in np.flatnonzero(row))},test"
        for file, row in zip(files, label, strict=True)
    ]
    (path / "list.csv").write_text("\n".join(["path,labels,split", *lines, "train/class0/00.png,c6,train"]))
    return path / "list.csv", images, label


def logits_of(images, kernel):
    return (images.reshape(len(images), -1) / 127.5 - 1) @ kernel.astype(np.float64)


def score(kind, place, kernel, forward, objective):
    evaluator = kind(split="test", dataset=str(place), resolution=(8, 8), batch_size=8)
    evaluator.open()
    return evaluator.bind(Bound(forward, objective, partition.make_mesh(), 7))({"kernel": kernel})


def test_the_evaluator_scores_sets_of_labels(listed, kernel, forward):
    place, images, label = listed
    found = score(MultiLabel, place, kernel, forward, sigmoid_cross_entropy())
    logits = logits_of(images, kernel)
    p = 1 / (1 + np.exp(-logits))
    assert found.values == pytest.approx(
        {
            "map": average_precision_score(label[:, :6], logits[:, :6], average="macro"),
            "top1": label[np.arange(13), logits.argmax(axis=1)].mean(),
            "loss": -np.where(label, np.log(p), np.log(1 - p)).sum(axis=1).mean(),
            "num_examples": 13,
        },
        rel=1e-4,
    )


def test_classification_counts_a_prediction_in_the_set_and_leaves_images_without_a_label_out(listed, kernel, forward):
    place, images, label = listed
    found = score(Classification, place, kernel, forward, sigmoid_cross_entropy())
    order = np.argsort(-logits_of(images, kernel), axis=1)
    some = label.any(axis=1)
    top1, top5 = (np.take_along_axis(label, order[:, :k], axis=1).any(axis=1)[some].mean() for k in (1, 5))
    assert 0 < top1 < top5
    assert some.sum() == 11
    expected = {"top1": top1, "top5": top5, "num_examples": 11}
    assert {name: found.values[name] for name in expected} == pytest.approx(expected)
    assert set(found.examples) == {"index", "predicted", "confidence"}
    with pytest.raises(UserError, match="sets of labels, of which the training objective has no loss"):
        score(Classification, place, kernel, forward, softmax_cross_entropy())


def test_single_labels_are_refused(folder):
    with pytest.raises(UserError, match="one label each; score it with an evaluator named classification"):
        MultiLabel(split="test", dataset=str(folder[0])).open()
