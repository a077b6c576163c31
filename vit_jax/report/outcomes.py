"""The outcomes of a task's predictions: accuracy by class, which classes are confused, and the mistakes kept as images.

Predictions of a task's final runs are counted together. Missing files, and files that contradict `result.json`, become notes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_jax.files import open_regular, read_json_value
from vit_jax.report.collect import Run
from vit_jax.sweeps.results import MISTAKES_DIR, PREDICTIONS_FILE

MATRIX_CLASSES = 30  # up to this many classes, the whole matrix is shown
NUM_PAIRS = 20
NUM_MISTAKES = 12
SMALL_PX = 64  # images up to this width are enlarged without smoothing


class ClassScore(NamedTuple):
    """How often a class was recognised."""

    name: str
    correct: int
    total: int

    @property
    def percent(self) -> float:
        return 100 * self.correct / self.total


class Pair(NamedTuple):
    """A class mistaken for another."""

    label: str
    predicted: str
    num: int
    total: int

    @property
    def percent(self) -> float:
        """The share of the class's examples, in percent."""
        return 100 * self.num / self.total


class Mistake(NamedTuple):
    """One image that was predicted wrongly."""

    file: Path
    label: str
    predicted: str
    confidence: float
    name: str
    small: bool


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """The outcomes of one task of one sweep; the page omits empty parts.

    Args:
      seeds: seeds of the runs counted.
      class_names: in label order.
      matrix: int (c, c), rows are labels; None if there are no predictions.
      mistakes: mistakes of the first seed that kept some.
      notes: messages about missing and contradicting files.
    """

    seeds: tuple[int, ...]
    class_names: tuple[str, ...]
    matrix: np.ndarray | None
    mistakes: tuple[Mistake, ...]
    notes: tuple[str, ...]

    @property
    def classes(self) -> list[ClassScore]:
        """Classes with examples, the worst recognised first."""
        if self.matrix is None:
            return []
        totals = self.matrix.sum(1)
        scores = [
            ClassScore(name, int(self.matrix[n, n]), int(totals[n]))
            for n, name in enumerate(self.class_names)
            if totals[n]
        ]
        return sorted(scores, key=lambda score: (score.percent, score.name))

    @property
    def small_matrix(self) -> np.ndarray | None:
        """The matrix if it is small enough to read."""
        return self.matrix if self.matrix is not None and len(self.matrix) <= MATRIX_CLASSES else None

    @property
    def pairs(self) -> list[Pair]:
        """Pairs of classes that are confused, the most frequent first."""
        if self.matrix is None:
            return []
        wrong, totals = self.matrix.copy(), self.matrix.sum(1)
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:NUM_PAIRS]
        places = [tuple(map(int, np.unravel_index(place, wrong.shape))) for place in order]
        return [
            Pair(self.class_names[a], self.class_names[b], int(wrong[a, b]), int(totals[a]))
            for a, b in places
            if wrong[a, b]
        ]


def outcomes(runs: Sequence[Run], metric: str) -> Outcomes | None:
    """Counts the predictions of a task's final runs; None if there are no such runs."""
    if not runs:
        return None
    names = runs[0].result.class_names
    matrix: np.ndarray | None = None
    seeds, notes = [], []
    for run in runs:
        counted = _count(run, len(names), metric)
        if isinstance(counted, str):
            notes.append(f"seed {run.result.seed}: {counted}")
        else:
            matrix = counted if matrix is None else matrix + counted
            seeds.append(run.result.seed)
    mistakes: tuple[Mistake, ...] = ()
    for run in runs:
        mistakes_of_run = _mistakes(run)
        if isinstance(mistakes_of_run, str):
            notes.append(f"seed {run.result.seed}: {mistakes_of_run}")
        elif mistakes_of_run:
            mistakes = mistakes_of_run
            break
    return Outcomes(tuple(seeds), names, matrix, mistakes, tuple(notes))


def _count(run: Run, num_classes: int, metric: str) -> np.ndarray | str:
    """A confusion matrix, int (c, c), or why there is none."""
    file = run.folder / PREDICTIONS_FILE
    if not file.exists():
        return f"no {PREDICTIONS_FILE}, so no accuracy by class"
    try:
        with open_regular(file) as opened, np.load(opened, allow_pickle=False) as saved:
            label, predicted = (np.asarray(saved[key]) for key in ("label", "predicted"))
    except Exception as error:  # a damaged file makes zipfile, zlib and numpy raise many types
        return f"{PREDICTIONS_FILE} cannot be read ({type(error).__name__})"
    if label.ndim != 1 or label.shape != predicted.shape or not {label.dtype.kind, predicted.dtype.kind} <= set("iu"):
        return f"{PREDICTIONS_FILE} holds no pairs of labels"
    if not len(label) or min(label.min(), predicted.min()) < 0 or max(label.max(), predicted.max()) >= num_classes:
        return f"{PREDICTIONS_FILE} does not fit {num_classes} classes"
    if len(label) != run.result.num_examples:
        return f"{PREDICTIONS_FILE} has {len(label):,} examples, result.json {run.result.num_examples:,}; not counted"
    top1 = float(np.mean(label == predicted))
    if metric == "top1" and abs(top1 - run.result.score("top1")) > 1e-5:
        recorded = f"{100 * run.result.score('top1'):.2f}%"
        return f"{PREDICTIONS_FILE} gives {100 * top1:.2f}%, but result.json has {recorded}; not counted"
    cells = np.bincount(label.astype(np.int64) * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def _mistakes(run: Run) -> tuple[Mistake, ...] | str:
    """The kept images that exist, or why they cannot be shown; empty if none were kept."""
    folder = run.folder / MISTAKES_DIR
    file = folder / "mistakes.json"
    if not file.exists():
        return ()
    try:
        listed = read_json_value(file)
        mistakes = [_mistake(folder, item, run.result.class_names) for item in listed[:NUM_MISTAKES]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        return f"mistakes.json cannot be read ({type(error).__name__})"
    missing = [mistake.file.name for mistake in mistakes if not mistake.file.is_file()]
    if missing:
        return f"mistakes.json names images that are missing: {', '.join(missing)}"
    return tuple(mistakes)


def _mistake(folder: Path, item: dict[str, Any], names: Sequence[str]) -> Mistake:
    file = str(item["file"])
    if Path(file).name != file:
        raise ValueError("an image outside its folder")
    label, predicted = (_name(item[key], names) for key in ("label", "predicted"))
    place = folder / file
    small = place.is_file() and _is_small(place)
    return Mistake(place, label, predicted, float(item["confidence"]), str(item.get("name", "")), small)


def _name(label: int | str, names: Sequence[str]) -> str:
    return names[label] if isinstance(label, int) and 0 <= label < len(names) else str(label)


def _is_small(file: Path) -> bool:
    """Whether the width in a PNG's header is small."""
    with open_regular(file) as opened:
        head = opened.read(24)
    return head[1:4] == b"PNG" and int.from_bytes(head[16:20], "big") <= SMALL_PX
