"""What a source reads, as a short hash, cheap enough for every start: processes of one run compare theirs, as each reads its
own share of the data, from its own disk perhaps."""

from __future__ import annotations

import hashlib

import numpy as np

from vit_jax.data.source import Source, read_many

SAMPLES = 32  # examples that are read whole, spread evenly from the first to the last


def likeness(source: Source) -> str:
    """A hash of a split: its size and classes, what its source says of all of it, and some of its examples.

    A source may have `fingerprint() -> bytes` that covers what is cheap to know of every example: names, labels, sizes.
    """
    digest = hashlib.sha256(repr(source.spec[1:]).encode(errors="surrogateescape"))
    fingerprint = getattr(source, "fingerprint", None)
    if fingerprint is not None:
        digest.update(fingerprint())
    count = min(SAMPLES, len(source))
    places = np.linspace(0, len(source) - 1, count).astype(int).tolist()
    for data, label, _ in read_many(source, places):
        digest.update(repr(label).encode() + hashlib.sha256(data).digest())
    return digest.hexdigest()[:16]
