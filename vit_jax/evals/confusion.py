"""The confusion matrix of a classifier as a picture: rows are the true classes, columns the predicted ones.

Colours are those of viridis, which are ordered by brightness for any colour vision.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

MOST_CLASSES = 50  # of more, neither cells nor names can be read
MOST_NUMBERS = 20  # classes whose cells hold their counts
OTHER = "(other)"  # predictions of classes that the data does not have


def count(label: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts examples by true and predicted class.

    Args:
      label, predicted: integers (n,); a prediction may be of a class that the data does not have.
      num_classes: classes of the data.

    Returns:
      int (num_classes, num_classes), with a further column for predictions of other classes where there are any.
    """
    columns = num_classes + 1
    cells = label.astype(np.int64) * columns + np.minimum(predicted, num_classes)
    counts = np.bincount(cells, minlength=num_classes * columns).reshape(num_classes, columns)
    return counts if counts[:, -1].any() else counts[:, :-1]


def draw(counts: np.ndarray, classes: Sequence[str], title: str) -> np.ndarray:
    """Draws the matrix as uint8 (h, w, 3): colours are shares of a row, numbers are counts.

    Args:
      counts: see `count`.
      classes: names of the data's classes.
      title: of the picture.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    rows, columns = counts.shape
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    named = [name if len(name) <= 24 else f"{name[:23]}…" for name in classes]
    side = 0.32 if rows <= MOST_NUMBERS else 0.2  # inches of a cell
    # Names come from the user: a dollar sign in one starts no formula.
    style: dict[Any, Any] = {"text.parse_math": False, "font.size": 9 if rows <= MOST_NUMBERS else 7}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script that the font lacks
        figure = Figure(
            figsize=(max(columns * side, 2.2) + 2.6, max(rows * side, 1.6) + 1.8), dpi=110, layout="constrained"
        )
        canvas = FigureCanvasAgg(figure)
        ax = figure.subplots()
        # The root shows mistakes of a few percent too.
        drawn = ax.imshow(shares, norm=PowerNorm(0.5, 0, 1), cmap="viridis", interpolation="none")
        ax.set_xticks(range(columns), [*named, OTHER][:columns], rotation=90)
        ax.set_yticks(range(rows), named)
        ax.set(xlabel="predicted", ylabel="true class", title=title)
        for row, column in zip(*np.nonzero(counts if rows <= MOST_NUMBERS else []), strict=True):
            ink = "black" if shares[row, column] > 0.4 else "white"
            ax.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=ink, fontsize=7)
        figure.colorbar(drawn, ax=ax, label="share of its row", shrink=0.6)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()
