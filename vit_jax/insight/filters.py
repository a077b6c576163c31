"""The filters of a model's first layer, by their principal components."""

from __future__ import annotations

import numpy as np


def filter_components(kernel: np.ndarray, count: int = 28) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of filters: a basis of the fine structure inside a patch that a model distinguishes.

    Args:
      kernel: (h, w, channels, features), a filter for each feature.
      count: largest number of components.

    Returns:
      (float64 (m, h, w, channels), components of length 1 whose entry of largest magnitude is positive, the first with the
      largest variance; float64 (m,), the share of the variance of all filters along each).

    Source: arXiv 2010.11929, figure 7 (left) and section 4.5.
    """
    filters = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1]).T  # features pixels
    _, lengths, rows = np.linalg.svd(filters - filters.mean(axis=0), full_matrices=False)
    rows, variance = rows[:count], lengths**2
    rows = rows * np.sign(np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1))
    return rows.reshape(-1, *kernel.shape[:3]), (variance / max(variance.sum(), 1e-300))[:count]
