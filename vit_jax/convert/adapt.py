"""Fits parameters from elsewhere to a model: head policy, other resolution, and a report of what became of every tensor.

Nothing is loaded in part by accident: a tensor that the model misses or does not know, or of another shape, is an error
that lists all such tensors (arXiv 2010.11929, section 3.2, says what a change of task and resolution may replace).

Called by: run (`init`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from vit_jax.models.positions import resample_positions
from vit_jax.types import UserError

# Replaced as a whole by the head policy "zeros": the linear head and the representation layer before it.
HEAD = ("head/", "pre_logits/")
POSITIONS = "Transformer/posembed_input/pos_embedding"


class Fate(NamedTuple):
    """What became of one tensor: `loaded`, `resized`, `fresh` (this model's own start) or `dropped` (the file's)."""

    name: str
    action: str
    detail: str


def fit_params(
    source: Mapping[str, np.ndarray],
    fresh: Mapping[str, np.ndarray],
    *,
    head: Literal["zeros", "keep"],
    new_grid: tuple[int, int],
    old_grid: tuple[int, int] | None = None,
) -> tuple[dict[str, np.ndarray], list[Fate]]:
    """Fits a file's tensors to a model's parameters.

    Args:
      source: {native name: array} of the checkpoint.
      fresh: {native name: array} of the model as initialised; gives names, shapes, dtypes, and the new head.
      head: `zeros` drops the checkpoint's head and representation layer and starts new ones (fine-tuning); `keep` loads
        them, and needs them to fit.
      new_grid: (gh, gw) of the model's patches.
      old_grid: (gh, gw) of the checkpoint's, where it says so; else the square that its number of positions makes.

    Returns:
      (parameters under the names of `fresh`, one Fate per tensor on either side).

    Raises:
      UserError: tensors missing, unknown or of other shapes, all listed.
    """
    params: dict[str, np.ndarray] = {}
    report: list[Fate] = []
    errors: list[str] = []
    for name, start in fresh.items():
        if head == "zeros" and name.startswith(HEAD):
            params[name] = np.asarray(start)
            report.append(Fate(name, "fresh", f"{_shape(start)} new head (init.head=zeros)"))
        elif name not in source:
            errors.append(f"  missing in the checkpoint: {name} {_shape(start)}")
        else:
            value = np.asarray(source[name])
            if not np.issubdtype(value.dtype, np.floating) and value.dtype.name != "bfloat16":
                errors.append(f"  not floating point: {name} is {value.dtype}")
                continue
            value, fate, error = _fit_tensor(
                name, value.astype(start.dtype), start, "cls" in source, old_grid, new_grid
            )
            params[name] = value
            (errors if error else report).append(error or fate)  # type: ignore[arg-type]
    for name, value in source.items():
        if name in fresh and not (head == "zeros" and name.startswith(HEAD)):
            continue
        if head == "zeros" and name.startswith(HEAD):
            report.append(Fate(name, "dropped", f"{_shape(value)} old head (init.head=zeros)"))
        else:
            errors.append(f"  not in the model: {name} {_shape(value)}")
    if errors:
        raise UserError(
            f"the checkpoint does not fit the model ({len(errors)} tensors, nothing was loaded); change the model section "
            f"or init.head:\n" + "\n".join(errors)
        )
    return params, report


def _fit_tensor(
    name: str,
    value: np.ndarray,
    start: np.ndarray,
    has_class_token: bool,
    old_grid: tuple[int, int] | None,
    new_grid: tuple[int, int],
) -> tuple[np.ndarray, Fate | None, str | None]:
    """One tensor's (value, fate, error)."""
    if name == POSITIONS and value.ndim == 3 and value.shape[-1] == start.shape[-1]:
        entries = value.shape[1] - has_class_token
        side = math.isqrt(max(entries, 0))
        if old_grid is None and side * side != entries:
            return value, None, f"  {name} has {entries} positions, not a square grid, and the file does not say which"
        grid = tuple(old_grid or (side, side))
        if grid != tuple(new_grid):
            try:
                value = resample_positions(value, grid, new_grid, has_class_token=has_class_token)  # type: ignore[arg-type]
            except ValueError as error:
                return value, None, f"  {name}: {error}"
            if value.shape == start.shape:
                sizes = f"{grid[0]}x{grid[1]} -> {new_grid[0]}x{new_grid[1]}"
                return value, Fate(name, "resized", f"{sizes}, bilinear, corners aligned"), None
    if value.shape != start.shape:
        return value, None, f"  shape: {name} is {_shape(value)} in the checkpoint, {_shape(start)} in the model"
    return value, Fate(name, "loaded", _shape(value)), None


def format_report(report: list[Fate], *, every_leaf: bool = False) -> str:
    """The report as text: a count per action, then a line for each tensor that was not simply loaded (or for all)."""
    counts = Counter(fate.action for fate in report)
    lines = [
        ", ".join(
            f"{counts[action]} {action}" for action in ("loaded", "resized", "fresh", "dropped") if counts[action]
        )
    ]
    for fate in report:
        if every_leaf or fate.action != "loaded":
            lines.append(f"  {fate.action:<8} {fate.name} {fate.detail}")
    return "\n".join(lines)


def _shape(array: np.ndarray) -> str:
    return "x".join(map(str, array.shape)) or "scalar"
