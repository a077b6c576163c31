"""Precision-recall curves of detectors, from the `predictions/NAME.npz` of finished runs."""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.evals import coco
from vit_jax.report.charts import Chart, color_of, draw, legend, short

SHOWN = {0: "-", 5: "--"}  # index of an overlap (0.5, 0.75) -> style of its line
NEEDED = ("score", "kind", "box", "true_box", "true_kind", "true_valid", "true_crowd", "true_area")


def precision_charts(runs: Sequence[tuple[int, str, Path]]) -> list[Chart]:
    """A chart for each evaluator of detections.

    Args:
      runs: (place on the page, label, workdir).
    """
    names = dict.fromkeys(file.stem for *_, folder in runs for file in sorted((folder / "predictions").glob("*.npz")))
    charts = []
    for number, name in enumerate(names):
        files = [(place, label, folder / "predictions" / f"{name}.npz") for place, label, folder in runs]
        curves = [(place, label, curve) for place, label, file in files if (curve := read_curve(file)) is not None]
        if curves:
            caption = (
                f"Precision at each recall on {name}, the mean over classes; overlap of 0.5, and of 0.75 (dashed)."
            )
            paint = functools.partial(_paint, curves=curves)
            charts.append(Chart(draw(f"precision-{number}", caption, (4.2, 2.9), paint), caption))
    return charts


def read_curve(file: Path) -> np.ndarray | None:
    """Mean precision over the classes that have objects, float (overlaps, recalls); None if the file has no detections."""
    try:
        modified = file.stat().st_mtime_ns
    except OSError:
        return None
    return _read_curve(file, modified)


@functools.lru_cache(maxsize=64)  # a page that watches runs is written again and again
def _read_curve(file: Path, modified: int) -> np.ndarray | None:
    del modified
    try:
        with np.load(file) as stored:
            if not set(NEEDED) <= set(stored.files):
                return None
            held = {name: stored[name] for name in NEEDED}
    except (OSError, ValueError, zipfile.BadZipFile):
        return None  # the run's links on the page show which files exist
    objects, found = coco.as_pairs(held)
    kinds = 1 + max((int(x.kind.max()) for x in (objects, found) if len(x.kind)), default=-1)
    precision = coco.tabulate(objects, found, kinds, areas={"all": coco.AREAS["all"]}, most=coco.MOST[-1:]).precision
    each = precision[..., 0, 0]  # overlaps recalls classes
    there = (each > -1).all(axis=(0, 1))
    return each[..., there].mean(axis=-1) if there.any() else None


def _paint(ax: Any, curves: Sequence[tuple[int, str, np.ndarray]]) -> None:
    for place, label, curve in curves:
        for at, style in SHOWN.items():
            name = short(label) if at == 0 else None
            ax.plot(coco.RECALLS, curve[at], style, color=color_of(place), label=name)
    ax.set(title="Precision and recall", xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    legend(ax, len(curves))
