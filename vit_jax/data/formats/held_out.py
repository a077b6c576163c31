"""Two splits that one's own images have without being sorted by hand: `train_held_out`, a tenth of each class of `train`, and
`train_kept`, the rest.

They are named wherever a split is, `train_kept[:50%]` too, of a folder of images, a list, tar shards, and what was packed from
them. Which examples are held out depends on their order and labels alone, so it is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vit_jax.data.source import SubsetSource
from vit_jax.data.splits import parse_split, split_names
from vit_jax.targets import ClassId
from vit_jax.types import UserError

KEPT, HELD_OUT = "train_kept", "train_held_out"
FOLD = 10  # one example in ten is held out


def is_part(split: str) -> bool:
    """Whether a split expression names one of the two."""
    return bool({KEPT, HELD_OUT} & set(split_names(split)))


def hold_out(labels: np.ndarray) -> np.ndarray:
    """Says which examples are held out. No random numbers: the rule is the split.

    Order the examples by class, and inside a class as they are read; every tenth one, the first included, is held out. So each
    class gives a tenth of its examples, to within one, and no class all of them. A class of one example is not counted: it
    trains.

    Args:
      labels: int (n,), in reading order.

    Returns:
      bool (n,).
    """
    held = np.zeros(len(labels), bool)
    by_class = np.argsort(labels, kind="stable")
    several = by_class[np.bincount(labels)[labels[by_class]] > 1] if len(labels) else by_class
    held[several[::FOLD]] = True
    return held


def open_part(dataset: str, split: str, open_stored: Callable[[str, str], Any]) -> SubsetSource:
    """Opens a split that consists of the two.

    Args:
      dataset: the user's own images.
      split: TFDS's syntax over the two names.
      open_stored: opens (dataset, stored split); its result has `labels()`, int (n,).

    Raises:
      UserError: other splits in the same expression, no two images of any class, or what `open_stored` raises.
    """
    if others := [name for name in split_names(split) if name not in (KEPT, HELD_OUT)]:
        raise UserError(
            f"{dataset}: cannot read split {split!r}: {KEPT} and {HELD_OUT} are parts of train and cannot be joined with "
            f"{others[0]}; name either alone"
        )
    whole = open_stored(dataset, "train")
    labels = whole.labels()
    if len(labels) and labels.min() < 0:
        raise UserError(
            f"{dataset}: train has images without labels, which cannot be held out by class; name another split"
        )
    held = hold_out(labels)
    if not held.any():
        raise UserError(
            f"{dataset}: no class has two images in train, so none can be held out; add images, or name another split"
        )
    parts = {KEPT: np.flatnonzero(~held), HELD_OUT: np.flatnonzero(held)}
    slices = parse_split(dataset, split, {name: len(places) for name, places in parts.items()})
    places = np.concatenate([parts[part.name][part.start : part.stop] for part in slices])
    source = whole.subset(places)
    counts = np.bincount(labels[places], minlength=whole.spec.num_classes)
    if not isinstance(whole.spec.target, ClassId):  # sets and numbers: a tenth of all examples
        counts = counts[:0]
    single = int((np.bincount(labels) == 1).sum())
    note = (
        f"{dataset} is split by class: {len(parts[HELD_OUT]):,} of its {len(labels):,} training images, a tenth of each class, "
        f"are held out ({HELD_OUT}), and {len(parts[KEPT]):,} train ({KEPT})"
        + (f"; {single:,} classes of one image train only" if single else "")
    )
    notes = (*whole.spec.notes, note)
    source.spec = source.spec._replace(split=split, class_counts=tuple(counts.tolist()), notes=notes)
    return source
