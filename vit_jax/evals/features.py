"""Frozen features of a whole split, which probes are fitted to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vit_jax import partition
from vit_jax.data.source import Source
from vit_jax.evals.base import Exif, read_split


def jit_features(forward: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """(params, batch) -> (representation, label, mask) of the batch, on every device."""
    return jax.jit(
        lambda params, batch: (forward(params, batch.image).pre_logits, batch.target, batch.mask),
        out_shardings=partition.replicated(mesh),
    )


def extract_features(
    features: Callable[..., Any],
    params: Any,
    source: Source,
    mesh: Mesh,
    *,
    resolution: tuple[int, int],
    batch_size: int,
    exif: Exif = "apply",
) -> tuple[np.ndarray, np.ndarray]:
    """Representation (n, d) and label (n,) of a whole split, in the split's order; `features` comes from `jit_features`."""
    batches = read_split(
        source,
        recipe="fewshot",
        resolution=resolution,
        batch_size=batch_size,
        mesh=mesh,
        max_corrupt=0,
        exif=exif,
    )
    parts = [jax.device_get(features(params, batch)) for batch, _ in batches]
    x, y, mask = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    return x[mask > 0], y[mask > 0]
