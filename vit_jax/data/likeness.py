"""A short hash of the data that a source reads, cheap enough for every start: processes of one run compare theirs, since each
reads its own share of the data, perhaps from its own disk."""

from __future__ import annotations

import hashlib

import numpy as np

from vit_jax.data.source import Source

SAMPLES = 32  # examples that are read whole, spread evenly from the first to the last


def likeness(source: Source) -> str:
    """A hash of a split: its size and classes, its source's fingerprint, and some of its examples."""
    digest = hashlib.sha256(repr(source.spec[1:]).encode(errors="surrogateescape"))
    digest.update(source.fingerprint())
    count = min(SAMPLES, len(source))
    places = np.linspace(0, len(source) - 1, count).astype(int).tolist()
    for data, label, _ in source.read_many(places):
        digest.update(repr(label).encode() + hashlib.sha256(data).digest())
    return digest.hexdigest()[:16]
