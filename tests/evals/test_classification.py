"""Top-1, top-5 and loss of a whole split, on eight devices, against numpy."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import partition
from vit_jax.evals import base, confusion
from vit_jax.evals import split as scored_split
from vit_jax.evals.classification import Classification
from vit_jax.train.objectives import Objective, sigmoid_cross_entropy, softmax_cross_entropy
from vit_jax.types import UserError


def score(folder, kernel, forward, *, objective=None, devices=8, **options):
    settings = {"split": "test", "dataset": str(folder), "resolution": (8, 8), "batch_size": 8, **options}
    evaluator = Classification(**settings)
    evaluator.open()
    mesh = partition.make_mesh(devices=jax.devices()[:devices])
    bound = base.Bound(forward, objective or softmax_cross_entropy(), mesh, kernel.shape[1])
    return evaluator.bind(bound)({"kernel": jnp.asarray(kernel)})


def evaluate(*args, **options):
    return score(*args, **options).values


def by_hand(images, labels, kernel):
    """(top-1, top-5, softmax loss, sigmoid loss), means over the images, in float64."""
    x = (images.reshape(len(images), -1).astype(np.float64) - 127.5) / 127.5
    logits = x @ kernel.astype(np.float64)
    rank = (logits > logits[np.arange(len(labels)), labels][:, None]).sum(axis=1)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    y = np.eye(logits.shape[1])[labels]
    sigmoid = np.log1p(np.exp(-logits)) * y + np.log1p(np.exp(logits)) * (1 - y)
    return (rank < 1).mean(), (rank < 5).mean(), -(log_p * y).sum(axis=1).mean(), sigmoid.sum(axis=1).mean()


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "devices"), [(8, 8), (16, 8), (5, 1)])
def test_scores_are_exact_when_the_batch_does_not_divide_the_split(folder, kernel, forward, batch_size, devices):
    path, _, (images, labels) = folder
    top1, top5, loss, _ = by_hand(images, labels, kernel)
    assert len({0.0, top1, top5, 1.0}) == 4  # numbers that could be wrong
    scores = evaluate(path, kernel, forward, batch_size=batch_size, devices=devices)
    assert scores.pop("num_examples") == 13
    assert set(scores) == {"top1", "top5", "loss"}
    assert (scores["top1"], scores["top5"]) == pytest.approx((top1, top5), rel=1e-7)
    assert scores["loss"] == pytest.approx(loss, rel=1e-5)


def test_the_loss_is_the_training_objectives(folder, kernel, forward):
    path, _, (images, labels) = folder
    scores = evaluate(path, kernel, forward, objective=sigmoid_cross_entropy())
    assert scores["loss"] == pytest.approx(by_hand(images, labels, kernel)[3], rel=1e-5)


@pytest.mark.slow
def test_of_five_classes_or_fewer_there_is_no_top_five(folder, kernel, forward):
    path, _, (images, labels) = folder
    for classes, figures in ((6, {"top1", "top5"}), (5, {"top1"}), (3, {"top1"})):
        for label in range(classes, 7):
            for split in ("train", "test"):
                shutil.rmtree(path / split / f"class{label}", ignore_errors=True)
        top1 = by_hand(images[labels < classes], labels[labels < classes], kernel[:, :classes])[0]
        scores = evaluate(path, kernel[:, :classes], forward)
        assert set(scores) == {"loss", "num_examples", *figures}
        assert (scores["top1"], scores["num_examples"]) == (pytest.approx(top1), (labels < classes).sum())


def test_padding_whose_loss_is_not_finite_does_not_count(folder, kernel, forward):
    path = folder[0]

    def values(outputs, batch):
        blank = (batch.image == 0).all(axis=(1, 2, 3))
        return {"loss": jnp.where(blank, jnp.nan, 2.0)}

    assert evaluate(path, kernel, forward, objective=Objective(values))["loss"] == 2.0


def corrupt(path, label, index):
    file = path / "test" / f"class{label}" / f"{index:02}.png"
    file.write_bytes(file.read_bytes()[:60])


def test_corrupt_images_up_to_the_limit_count_as_absent(folder, kernel, forward):
    path, _, (images, labels) = folder
    corrupt(path, 1, 0)  # the fourth image written
    keep = np.arange(13) != 3
    top1, top5, loss, _ = by_hand(images[keep], labels[keep], kernel)
    scores = evaluate(path, kernel, forward, max_corrupt=1)
    assert scores == {
        "top1": pytest.approx(top1),
        "top5": pytest.approx(top5),
        "loss": pytest.approx(loss, rel=1e-5),
        "num_examples": 12,
    }


@pytest.mark.parametrize("allowed", [0, 1])
def test_more_corrupt_images_than_the_limit_are_an_error_that_names_them(folder, kernel, forward, allowed):
    path = folder[0]
    for label in range(allowed + 1):
        corrupt(path, label, 0)
    with pytest.raises(UserError, match=rf"{allowed + 1} of 13 images(.|\n)*class0/00.png"):
        evaluate(path, kernel, forward, max_corrupt=allowed)


def test_a_batch_that_goes_missing_is_an_error_and_not_a_score(folder, kernel, forward, monkeypatch):
    whole = scored_split.read_split

    def without_the_first(*args, **options):
        yield from list(whole(*args, **options))[1:]

    monkeypatch.setattr(scored_split, "read_split", without_the_first)
    with pytest.raises(UserError, match="scored 5 examples of 13"):
        evaluate(folder[0], kernel, forward, max_corrupt=0)


def test_the_confusion_matrix_is_drawn_of_what_was_predicted_where_it_is_asked_for(
    folder, kernel, forward, monkeypatch
):
    path, _, (_, labels) = folder
    assert score(path, kernel, forward).picture is None
    monkeypatch.setattr(confusion, "draw", lambda counts, classes, title: (counts, classes, title))
    corrupt(path, 1, 0)  # the fourth image written, of class 1
    scores = score(path, kernel, forward, confusion=True, max_corrupt=1)
    counts, classes, title = scores.picture
    np.testing.assert_array_equal(counts.sum(axis=1), np.bincount(labels) - np.eye(7, dtype=int)[1])
    assert np.trace(counts) == pytest.approx(12 * scores.values["top1"])
    assert classes == tuple(f"class{label}" for label in range(7))
    assert title == f"test: top-1 {scores.values['top1']:.1%} of 12"


def test_a_confusion_matrix_of_too_many_classes_is_refused_before_the_run(tmp_path):
    for label in range(51):
        (tmp_path / "train" / f"{label}").mkdir(parents=True)
        (tmp_path / "train" / f"{label}" / "0.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"at most 50 classes, .* has 51; leave it out"):
        Classification(split="train", dataset=str(tmp_path), confusion=True).open()
