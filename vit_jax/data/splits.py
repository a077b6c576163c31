"""The split syntax (`train[:98%]`, `train[10%:]+test`), parsed by TFDS's own parser for every kind of source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vit_jax.types import UserError


class Slice(NamedTuple):
    """Examples `start` to `stop` (excluded) of the split `name`, in stored order."""

    name: str
    start: int
    stop: int


def split_names(split: str) -> list[str]:
    """The stored splits that a split expression reads from: `train[:9]+test` -> train, test."""
    return [part.split("[")[0].strip() for part in split.split("+")]


def parse_split(dataset: str, split: str, counts: Mapping[str, int]) -> list[Slice]:
    """Turns a split expression into slices of the stored splits.

    Args:
      dataset: for messages.
      split: TFDS's syntax; a slice is absolute (`[:100]`), in percent (`[10%:]`) or from the end (`[-50:]`).
      counts: examples per stored split.

    Returns:
      One slice per term of the expression, none of them empty.

    Raises:
      UserError: a syntax error, an unknown split (the message lists them), a slice out of range or empty.
    """
    from tensorflow_datasets.core import splits as tfds_splits

    have = ", ".join(f"{name} ({count:,})" for name, count in counts.items()) or "none"
    if not split:
        raise UserError(f"{dataset}: no split was named; the splits are {have}")
    infos = {name: tfds_splits.SplitInfo(name=name, shard_lengths=[n], num_bytes=0) for name, n in counts.items()}
    try:
        terms = tfds_splits.AbstractSplit.from_spec(split).to_absolute(infos)
    except (ValueError, KeyError, AssertionError) as error:
        reason = str(error).splitlines()[0].strip("\"'")
        raise UserError(f"{dataset}: cannot read split {split!r} ({reason}); the splits are {have}") from error
    slices = [Slice(t.splitname, t.from_ or 0, counts[t.splitname] if t.to is None else t.to) for t in terms]
    empty = [s for s in slices if s.stop <= s.start]
    if empty:
        raise UserError(f"{dataset}: {split!r} takes no example of {empty[0].name!r}; the splits are {have}")
    return slices
