"""Hits, likelihood, calibration and intervals, against values worked out by hand, numpy and SciPy."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from vit_jax.evals.scoring import find_bins, score_rows, summarize


def score(p, label, **options):
    """Rows for logits that are log probabilities, shifted, which a softmax does not see."""
    logits = jnp.log(jnp.asarray(p, jnp.float32)) + 3.0
    return {name: np.asarray(x) for name, x in score_rows(logits, jnp.asarray(label), **options).items()}


P = [[0.5, 0.3, 0.1, 0.06, 0.03, 0.01], [0.1, 0.2, 0.4, 0.1, 0.15, 0.05]]


@pytest.mark.slow
def test_one_right_class_is_scored_as_usual():
    rows = score(P, np.int32([0, 5]))
    assert rows["top1"].tolist() == [True, False]
    assert rows["top5"].tolist() == [True, False]  # 0.05 is the sixth
    np.testing.assert_allclose(rows["nll"], [-np.log(0.5), -np.log(0.05)], rtol=1e-6)
    np.testing.assert_allclose(rows["confidence"], [0.5, 0.4], rtol=1e-6)
    assert rows["labelled"].all()
    assert rows["possible"].all()


@pytest.mark.slow
def test_several_right_classes_are_a_hit_if_the_best_is_one_of_them_and_their_probabilities_add():
    label = np.uint8([[0, 1, 1, 0, 0, 0], [0, 0, 1, 0, 1, 0], [0] * 6])
    rows = score([*P, P[0]], label)
    assert rows["top1"].tolist() == [False, True, False]
    assert rows["top5"].tolist() == [True, True, False]
    np.testing.assert_allclose(rows["nll"][:2], [-np.log(0.3 + 0.1), -np.log(0.4 + 0.15)], rtol=1e-6)
    assert rows["labelled"].tolist() == [True, True, False]


def test_a_set_of_one_class_is_that_class():
    one = score(P, np.int32([3, 2]))
    hot = score(P, np.eye(6, dtype=np.uint8)[[3, 2]])
    for name in one:
        np.testing.assert_array_equal(one[name], hot[name])


def test_classes_that_do_not_compete_are_out_of_hits_and_probabilities():
    # Of 0.3, 0.1 and 0.06 the first wins: 0.3 / 0.46.
    rows = score([P[0], P[0]], np.int32([1, 0]), competing=(1, 2, 3))
    assert rows["top1"].tolist() == [True, False]
    assert rows["top5"].tolist() == [True, False]
    np.testing.assert_allclose(rows["confidence"], [0.3 / 0.46] * 2, rtol=1e-6)
    np.testing.assert_allclose(rows["nll"], [-np.log(0.3 / 0.46), np.inf], rtol=1e-6)
    assert rows["possible"].tolist() == [True, False]


@pytest.mark.parametrize("competing", [(), (0, 2, 5)])
def test_sigmoids_are_scored_class_by_class(competing):
    logits = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32) * 3
    label = np.uint8([[1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1], [0, 0, 1, 0, 0, 0]])
    rows = score_rows(jnp.asarray(logits), jnp.asarray(label), competing=competing, likelihood="sigmoid")
    p = scipy.special.expit(logits.astype(np.float64))
    each = -np.where(label, np.log(p), np.log1p(-p))
    among = list(competing) or list(range(6))
    np.testing.assert_allclose(rows["nll"], each[:, among].sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(rows["confidence"], p[:, among].max(axis=1), rtol=1e-6)
    best = np.array(among)[logits[:, among].argmax(axis=1)]
    np.testing.assert_array_equal(rows["top1"], label[np.arange(4), best] > 0)


def test_bins_are_closed_above():
    edges = np.arange(16) / 15
    assert find_bins(edges).tolist() == [0, *range(15)]
    assert find_bins(np.float32([1e-9, 0.5, 0.999, 1.0])).tolist() == [0, 7, 14, 14]


def rows_of(top1, confidence, nll=None):
    top1 = np.array(top1, bool)
    return {
        "top1": top1,
        "top5": np.ones(len(top1), bool),
        "nll": np.float32(nll if nll is not None else np.zeros(len(top1))),
        "confidence": np.float32(confidence),
    }


def test_the_calibration_error_by_hand():
    # 0.95 and 0.97 share the last bin (from 14/15 = 0.933): one hit of two, |1 - 1.92| = 0.92. 0.62 is in (9/15, 10/15]
    # and hits: 0.38. 0.10 misses: 0.10. (0.92 + 0.38 + 0.10) / 4 = 0.35.
    scores = summarize(rows_of([1, 0, 1, 0], [0.95, 0.97, 0.62, 0.10], [1, 2, 3, 6]))
    assert scores == {
        "top1": 0.5,
        "top5": 1.0,
        "nll": 3.0,
        "ece": pytest.approx(0.35, rel=1e-6),
    }


def drawn(n, seed=1):
    """Rows of a model that is right as often as it says, less a tenth."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.2, 1.0, n)
    top1 = rng.uniform(size=n) < confidence - 0.1
    rows = rows_of(top1, confidence, rng.exponential(size=n))
    return rows | {"top5": top1 | (rng.uniform(size=n) < 0.5)}


def test_intervals_are_those_of_resampling_the_examples_one_by_one():
    n, resamples = 300, 70  # more than are done at a time
    rows = drawn(n)
    rng = np.random.default_rng(5)
    found = {"top1": [], "top5": [], "nll": [], "ece": []}
    for _ in range(resamples):
        chosen = rng.integers(0, n, n)
        again = {name: values[chosen] for name, values in rows.items()}
        for name in ("top1", "top5", "nll"):
            found[name].append(again[name].astype(np.float64).mean())
        error = 0.0
        for low in range(15):
            inside = (again["confidence"] > low / 15) & (again["confidence"] <= (low + 1) / 15)
            if inside.any():
                gap = again["top1"][inside].mean() - again["confidence"][inside].astype(np.float64).mean()
                error += abs(gap) * inside.mean()
        found["ece"].append(error)
    scores = summarize(rows, resamples, seed=5)
    for name, values in found.items():
        expected = np.percentile(values, [2.5, 97.5])
        assert (scores[f"{name}_low"], scores[f"{name}_high"]) == pytest.approx(tuple(expected), rel=1e-9), name
        assert scores[f"{name}_low"] < scores[f"{name}_high"]


def test_an_accuracys_interval_is_the_binomials():
    # Resampled hits are binomial with n and the measured share: its quantiles are what many resamples come to.
    rows = drawn(2000)
    scores = summarize(rows, 4000)
    share = rows["top1"].mean()
    low, high = scipy.stats.binom.ppf([0.025, 0.975], 2000, share) / 2000
    assert (scores["top1_low"], scores["top1_high"]) == pytest.approx((low, high), abs=0.0015)  # 3 in 2,000 of a draw
    assert scores["top1_low"] < share < scores["top1_high"]


def test_the_same_seed_gives_the_same_intervals_and_none_gives_none():
    rows = drawn(100)
    assert summarize(rows, 50) == summarize(rows, 50)
    assert summarize(rows, 50) != summarize(rows, 50, seed=1)
    assert set(summarize(rows)) == {"top1", "top5", "nll", "ece"}
