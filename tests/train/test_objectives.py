"""Objectives against their formulas in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.train.objectives import OBJECTIVES, regression, sigmoid_cross_entropy, softmax_cross_entropy
from vit_jax.types import Batch, Outputs, UserError

LOGITS = np.random.default_rng(0).standard_normal((4, 7)) * 3
LABELS = np.array([0, 6, 3, 3])


def values(objective, logits=LOGITS, labels=LABELS):
    outputs = Outputs(None, None, None, jnp.asarray(logits, jnp.float32))
    batch = Batch(None, jnp.asarray(labels, jnp.int32), jnp.ones(len(labels), jnp.float32))
    return jax.jit(lambda: objective.values(outputs, batch))()


def targets(smoothing=0.0):
    return np.eye(7)[LABELS] * (1 - smoothing) + smoothing / 7


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_is_the_cross_entropy_of_each_example(smoothing):
    log_p = LOGITS - np.log(np.exp(LOGITS).sum(axis=-1, keepdims=True))
    expected = -(targets(smoothing) * log_p).sum(axis=-1)
    found = values(softmax_cross_entropy(label_smoothing=smoothing))
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_sigmoid_is_summed_over_classes(smoothing):
    p = 1 / (1 + np.exp(-LOGITS))
    y = targets(smoothing)
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(axis=-1)
    found = values(sigmoid_cross_entropy(label_smoothing=smoothing))
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)


def test_a_target_margin_moves_each_target_inside_whatever_the_number_of_classes():
    p = 1 / (1 + np.exp(-LOGITS))
    y = np.where(np.eye(7)[LABELS] == 1, 1 - 1e-2, 1e-2)
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(axis=-1)
    np.testing.assert_allclose(values(sigmoid_cross_entropy(target_margin=1e-2))["loss"], expected, rtol=1e-5)


def test_a_head_of_bias_minus_ten_starts_with_the_loss_of_one_missed_class():
    # 21,843 classes at -10: log(1 + e^10) for the right one and 21,842 log(1 + e^-10) for the others.
    found = values(sigmoid_cross_entropy(), np.full((1, 21843), -10.0), np.array([5]))
    assert float(found["loss"][0]) == pytest.approx(10.0000454 + 21842 * 4.5398899e-5, rel=1e-5)


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_accuracy_is_the_share_of_largest_logits_that_are_right(name):
    logits = np.array([[1, 2, 0], [5, 1, 4], [0, 0.1, 0.2], [-3, -2, -1]])
    found = values(OBJECTIVES[name](), logits, np.array([1, 2, 2, 0]))
    assert np.asarray(found["accuracy"]).tolist() == [1, 0, 1, 0]
    assert found["loss"].shape == (4,)


# Other kinds of target


def test_the_sigmoid_loss_of_a_set_counts_each_of_its_classes_and_a_hit_is_any_of_them():
    sets = np.array(
        [[1, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1], [0, 1, 0, 0, 0, 0, 0]], np.uint8
    )
    p = 1 / (1 + np.exp(-LOGITS))
    outputs = Outputs(None, None, None, jnp.asarray(LOGITS, jnp.float32))
    found = sigmoid_cross_entropy().values(outputs, Batch(None, jnp.asarray(sets), jnp.ones(4)))
    np.testing.assert_allclose(found["loss"], -np.where(sets, np.log(p), np.log(1 - p)).sum(axis=1), rtol=1e-5)
    assert found["accuracy"].tolist() == sets[np.arange(4), LOGITS.argmax(axis=1)].tolist()


def test_class_weights_weigh_the_mean_as_in_torch():
    # torch: sum of weight[label] * nll over the sum of weight[label].
    weights = (0.5, 1.0, 1.0, 3.0, 1.0, 1.0, 0.0)
    objective = softmax_cross_entropy(class_weights=weights)
    batch = Batch(None, jnp.asarray(LABELS, jnp.int32), jnp.asarray([1.0, 1.0, 1.0, 0.0]))
    loss, weight = values(objective)["loss"], objective.weight(batch)
    assert weight.tolist() == [0.5, 0.0, 3.0, 0.0]
    nll = -(LOGITS - np.log(np.exp(LOGITS).sum(axis=-1, keepdims=True)))[np.arange(4), LABELS]
    assert float((loss * weight).sum() / weight.sum()) == pytest.approx((0.5 * nll[0] + 3 * nll[2]) / 3.5, rel=1e-5)
    assert not objective.linear
    for wrong, message in (
        ((1.0, 2.0), "has 2 weights, and the model 7 classes"),
        ((-1.0,) * 7, "expected a weight of 0"),
    ):
        with pytest.raises(UserError, match=message):
            values(softmax_cross_entropy(class_weights=wrong))


@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_regression_is_a_mean_over_the_columns(loss):
    outputs = Outputs(None, None, None, jnp.asarray([[1.0, 2.0], [0.0, 0.0]]))
    batch = Batch(None, jnp.asarray([[0.0, 4.0], [3.0, 0.0]]), jnp.ones(2))
    found = {name: x.tolist() for name, x in regression(loss=loss).values(outputs, batch).items()}
    assert found == {"mse": [2.5, 4.5], "mae": [1.5, 1.5], "loss": [2.5, 4.5] if loss == "mse" else [1.5, 1.5]}
