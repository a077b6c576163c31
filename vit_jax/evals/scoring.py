"""Scores of predictions: hits, likelihood, calibration, and bootstrap intervals of their means. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

Likelihood = Literal["softmax", "sigmoid"]
BINS = 15  # bins of the calibration error, as in arXiv 1706.04599
AT_ONCE = 64  # resamples whose counts are in memory at a time


def keep_competing(logits: jax.Array, competing: Sequence[int]) -> jax.Array:
    """Sets the logits (b, c) of classes that do not compete to -inf; if `competing` is empty, all compete."""
    if not competing:
        return logits
    outside = np.ones(logits.shape[-1], bool)
    outside[list(competing)] = False
    return jnp.where(outside, -jnp.inf, logits)


def score_rows(
    logits: jax.Array, label: jax.Array, *, competing: Sequence[int] = (), likelihood: Likelihood = "softmax"
) -> dict[str, jax.Array]:
    """Scores each row of a batch.

    A row may have several right classes. It is a hit if the highest score (for top5, one of the five highest) belongs to a right
    class. With a softmax, nll is the negative logarithm of the sum of the right classes' probabilities, so the model may share
    the probability among them freely; with one right class this is cross-entropy. Sigmoids judge each class separately, so
    nll is then the binary cross-entropy, summed over the competing classes.

    Args:
      logits: float32 (b, c).
      label: int32 (b,), or uint8 (b, c), 1 for each right class.
      competing: the classes that predictions, and their probabilities, are limited to; empty for all.
      likelihood: how the model's scores become probabilities.

    Returns:
      {name: (b,)}: top1, top5, nll, confidence (the probability of the highest score), labelled (the row has a right class),
      possible (a right class competes).
    """
    c = logits.shape[-1]
    right = label > 0 if label.ndim == 2 else jax.nn.one_hot(label, c, dtype=jnp.bool_)  # b c
    scores = keep_competing(logits, competing)
    value, best = jax.lax.top_k(scores, min(5, len(competing) or c))  # b k
    hits = jnp.take_along_axis(right, best, axis=-1)  # b k
    in_play = jnp.isfinite(scores)
    if likelihood == "softmax":
        log_p = jax.nn.log_softmax(scores, axis=-1)  # b c
        nll = -jax.nn.logsumexp(jnp.where(right, log_p, -jnp.inf), axis=-1)
        confidence = jnp.exp(log_p.max(axis=-1))
    else:
        each = optax.sigmoid_binary_cross_entropy(logits, right.astype(logits.dtype))  # b c
        nll = jnp.where(in_play, each, 0.0).sum(axis=-1)
        confidence = jax.nn.sigmoid(value[:, 0])
    return {
        "top1": hits[:, 0],
        "top5": hits.any(axis=-1),
        "nll": nll,
        "confidence": confidence,
        "labelled": right.any(axis=-1),
        "possible": (right & in_play).any(axis=-1),
    }


def find_bins(confidence: np.ndarray) -> np.ndarray:
    """The index of the equal bin (0, 1/15], (1/15, 2/15], ... that holds each confidence in [0, 1]."""
    return np.clip(np.ceil(confidence.astype(np.float64) * BINS).astype(np.int64) - 1, 0, BINS - 1)


def summarize(rows: Mapping[str, np.ndarray], resamples: int = 0, seed: int = 0) -> dict[str, float]:
    """Means over the examples, expected calibration error, and bootstrap intervals.

    ECE is the mean over examples of |accuracy - mean confidence| of the example's bin (arXiv 1706.04599, 15 equal bins of
    the top-1 probability).

    An interval is the 2.5th to the 97.5th percentile of a figure over resamples of the examples. A resample draws as many
    examples as there are, with replacement, and serves all figures. Every figure depends only on the examples' weights, which
    are how often each was drawn: so a resample is a row of counts, and one matrix product scores many resamples. This is the
    exact bootstrap, not an approximation. An ECE is never negative and resampling adds noise to it, so its interval may lie
    above the figure if the figure is near zero.

    Args:
      rows: {name: (n,)}: top1, top5, nll, confidence.
      resamples: usually 1,000; 0 computes no intervals.
      seed: seed of the draws.

    Returns:
      top1, top5, nll and ece, each also with `_low` and `_high`.
    """
    n = len(rows["top1"])
    means = np.stack([rows[name].astype(np.float64) for name in ("top1", "top5", "nll")], axis=1)  # n 3
    gap = rows["top1"].astype(np.float64) - rows["confidence"].astype(np.float64)
    gaps = np.zeros((n, BINS))
    gaps[np.arange(n), find_bins(rows["confidence"])] = gap
    columns = np.concatenate([means, gaps], axis=1)  # n 3+bins
    names = ("top1", "top5", "nll", "ece")
    scores: dict[str, float] = dict(zip(names, _figures(np.ones((1, n)), columns)[0].tolist(), strict=True))
    if not resamples:
        return scores
    rng = np.random.default_rng(seed)
    draws = []
    for start in range(0, resamples, AT_ONCE):
        drawn = range(min(AT_ONCE, resamples - start))
        counts = np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in drawn]).astype(np.float64)
        draws.append(_figures(counts, columns))
    low, high = np.percentile(np.concatenate(draws), [2.5, 97.5], axis=0)
    for i, name in enumerate(names):
        scores |= {f"{name}_low": float(low[i]), f"{name}_high": float(high[i])}
    return scores


def _figures(weights: np.ndarray, columns: np.ndarray) -> Any:
    """Figures (r, 4) for r weightings (r, n) of the examples."""
    sums = weights @ columns / weights.shape[1]  # r 3+bins
    return np.concatenate([sums[:, :3], np.abs(sums[:, 3:]).sum(axis=1, keepdims=True)], axis=1)
