"""The linear probe against scikit-learn's logistic regression, and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from vit_jax import partition
from vit_jax.data.open import open_source
from vit_jax.evals.base import Bound
from vit_jax.evals.linear import LinearProbe, feature_scale, fit_lbfgs, fit_sgd, normalize, put_rows, score_rows


def clusters(n=150, d=6, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    centres = np.random.default_rng(7).standard_normal((classes, d))
    return (centres[y] + rng.standard_normal((n, d))).astype(np.float32), y.astype(np.int32)


def start(d=6, classes=4):
    return {"kernel": jnp.zeros((d, classes)), "bias": jnp.zeros(classes)}


def sklearn_fit(x, y, l2):
    """scikit-learn's weights (d, c) and biases, moved so that the biases' mean is 0: the softmax does not depend on it."""
    model = LogisticRegression(C=1 / l2, tol=1e-8, max_iter=5000).fit(x.astype(np.float64), y)
    return model.coef_.T, model.intercept_ - model.intercept_.mean(), model


@pytest.fixture(autouse=True)
def _promotion():
    with jax.numpy_dtype_promotion("standard"):  # optax's line search mixes types
        yield


@pytest.mark.slow
@pytest.mark.parametrize("l2", [10.0, 1.0])
def test_lbfgs_finds_the_weights_of_scikit_learn(l2):
    x, y = clusters()  # 150 rows: eight devices leave some over
    data = put_rows((x, y), partition.make_mesh())
    params = jax.device_get(fit_lbfgs(start(), data, jnp.float32(l2 / 150), 1000))
    kernel, bias, _ = sklearn_fit(x, y, l2)
    np.testing.assert_allclose(params["kernel"], kernel, atol=2e-3)
    np.testing.assert_allclose(params["bias"] - params["bias"].mean(), bias, atol=2e-3)


@pytest.mark.slow
def test_sgd_finds_them_too():
    x, y = clusters()
    data = put_rows((x, y), partition.make_mesh(1, jax.devices()[:1]))
    params = jax.device_get(fit_sgd(start(), data, jnp.float32(10 / 150), 150, 0.1, 60, 50, 0))
    kernel, bias, _ = sklearn_fit(x, y, 10.0)
    np.testing.assert_allclose(params["kernel"], kernel, atol=0.03)
    np.testing.assert_allclose(params["bias"] - params["bias"].mean(), bias, atol=0.03)


def test_features_are_normalised_as_by_a_batch_norm_without_scale_and_shift_or_by_their_length():
    x = np.array([[1.0, 2.0], [3.0, 2.0]], np.float32)
    scaled = normalize(x, *feature_scale(x, "batch"), "batch")
    np.testing.assert_allclose(scaled, [[-1 / np.sqrt(1 + 1e-6), 0], [1 / np.sqrt(1 + 1e-6), 0]], rtol=1e-6)
    np.testing.assert_allclose(normalize(np.array([[3.0, 4.0]]), *feature_scale(x, "length"), "length"), [[0.6, 0.8]])
    np.testing.assert_array_equal(normalize(x, *feature_scale(x, "none"), "none"), x)


def test_rows_are_scored_by_hand():
    params = {"kernel": np.eye(6, dtype=np.float32), "bias": np.zeros(6, np.float32)}
    x = np.array([[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]], np.float32)
    found = score_rows(params, (x, np.array([0, 1])))
    total = np.exp(np.arange(6)).sum()
    assert found["predicted"].tolist() == [5, 0]
    assert found["top1"].tolist() == [False, False]
    assert found["top5"].tolist() == [False, True]
    np.testing.assert_allclose(found["loss"], [np.log(total), np.log(total) - 4], rtol=1e-6)
    np.testing.assert_allclose(found["confidence"], np.exp(5) / total, rtol=1e-6)


@pytest.mark.slow
def test_the_evaluator_scores_what_scikit_learn_scores(folder, forward):
    path = str(folder[0])
    evaluator = LinearProbe(
        train_split="train",
        test_split="test",
        dataset=path,
        batch_size=16,
        recipe="eval",
        resolution=(8, 8),
        l2_reg=3.0,
    )
    evaluator.open()
    scores = evaluator.bind(Bound(forward, None, partition.make_mesh(), 7))({"kernel": jnp.zeros((192, 7))})

    def stored(split):
        source = open_source(path, split)
        images = np.stack([source.decode(source.read(i)[0]) for i in range(len(source))])
        labels = [source.read(i)[1] for i in range(len(source))]
        return (images.reshape(len(images), -1)[:, :12] - 127.5) / 127.5, np.array(labels)

    (x, y), (test_x, test_y) = stored("train"), stored("test")
    mean, std = x.mean(axis=0), np.sqrt(x.var(axis=0) + 1e-6)
    x, test_x = (x - mean) / std, (test_x - mean) / std
    _, _, model = sklearn_fit(x, y, 3.0)
    p = model.predict_proba(test_x)
    top5 = np.mean([label in np.argsort(row)[-5:] for row, label in zip(p, test_y, strict=True)])
    assert scores.values == pytest.approx(
        {
            "top1": model.score(test_x, test_y),
            "top5": top5,
            "loss": -np.log(p[np.arange(13), test_y]).mean(),
            "train_top1": model.score(x, y),
            "num_examples": 13,
        },
        abs=1e-3,
    )
    assert scores.examples["predicted"].tolist() == model.predict(test_x).tolist()
    assert scores.examples["label"].tolist() == test_y.tolist()
    assert scores.values["train_top1"] > 0.3  # of seven classes
