"""What is counted of a prediction: hits, likelihood, calibration, and how sure of their means one can be. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

Likelihood = Literal["softmax", "sigmoid"]
BINS = 15  # of the calibration error, as arXiv 1706.04599 has them
AT_ONCE = 64  # resamples whose counts are held at a time


def keep_competing(logits: jax.Array, competing: Sequence[int]) -> jax.Array:
    """Logits (b, c) with those of the classes that do not compete at -inf; all compete where none is named."""
    if not competing:
        return logits
    outside = np.ones(logits.shape[-1], bool)
    outside[list(competing)] = False
    return jnp.where(outside, -jnp.inf, logits)


def score_rows(
    logits: jax.Array, label: jax.Array, *, competing: Sequence[int] = (), likelihood: Likelihood = "softmax"
) -> dict[str, jax.Array]:
    """Scores each row of a batch.

    A row may have several right classes. It is a hit if the highest score (top5: one of the five highest) is of a right
    class. The softmax gives them the sum of their probabilities, and the negative log-likelihood is that of the sum: the
    model is not punished for how it shares between them. With one right class it is cross-entropy. Sigmoids answer for
    each class by itself, so theirs is binary cross-entropy, summed over the competing classes.

    Args:
      logits: float32 (b, c).
      label: int32 (b,), or uint8 (b, c), 1 for each right class.
      competing: classes that a prediction, and its probability, is chosen from; empty for all.
      likelihood: what the model's scores mean.

    Returns:
      (b,) each: top1, top5, nll, confidence (the probability of the highest score), labelled (it has a right class),
      possible (one of them competes).
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
    """Which of the equal bins (0, 1/15], (1/15, 2/15], ... a confidence in [0, 1] is in."""
    return np.clip(np.ceil(confidence.astype(np.float64) * BINS).astype(np.int64) - 1, 0, BINS - 1)


def summarize(rows: Mapping[str, np.ndarray], resamples: int = 0, seed: int = 0) -> dict[str, float]:
    """Means over the examples, expected calibration error, and bootstrap intervals.

    ECE is the mean over examples of |accuracy - mean confidence| of the bin that an example is in (arXiv 1706.04599, 15
    equal bins of the top-1 probability).

    An interval is the 2.5th to the 97.5th percentile of the figure over resamples of the examples, drawn with replacement,
    as many as there are; one draw serves all figures. All of them depend on an example's weight alone, which is how often
    it was drawn: so a resample is a row of counts, and many are scored by one matrix product. That is the bootstrap
    itself, and no approximation of it. An ECE is never negative and resampling adds noise to it, so its interval may lie
    above the figure where that is near zero.

    Args:
      rows: (n,) each: top1, top5, nll, confidence.
      resamples: 1,000 are usual; 0 leaves the intervals out.
      seed: of the draws.

    Returns:
      top1, top5, nll and ece, and of each `_low` and `_high`.
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
    found = []
    for start in range(0, resamples, AT_ONCE):
        drawn = range(min(AT_ONCE, resamples - start))
        counts = np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in drawn]).astype(np.float64)
        found.append(_figures(counts, columns))
    low, high = np.percentile(np.concatenate(found), [2.5, 97.5], axis=0)
    for i, name in enumerate(names):
        scores |= {f"{name}_low": float(low[i]), f"{name}_high": float(high[i])}
    return scores


def _figures(weights: np.ndarray, columns: np.ndarray) -> Any:
    """(r, 4) figures of r weightings (r, n) of the examples."""
    sums = weights @ columns / weights.shape[1]  # r 3+bins
    return np.concatenate([sums[:, :3], np.abs(sums[:, 3:]).sum(axis=1, keepdims=True)], axis=1)
