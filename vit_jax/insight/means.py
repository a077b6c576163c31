"""Means over images of a model's attention distances, entropies and norms of tokens, one image in memory at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vit_jax.insight.attention import attention_distance, entropy
from vit_jax.insight.subject import Subject, Tokens
from vit_jax.types import Outputs

Arrays = dict[str, np.ndarray]


class Row(NamedTuple):
    """One readable image, and its rows of a batch."""

    place: int
    image: np.ndarray
    outputs: Outputs


class Means:
    """Sums over images."""

    def __init__(self) -> None:
        self.count = 0
        self._sums: Arrays = {}
        self._counts: Arrays = {}

    def add(self, subject: Subject, batch: list[Row]) -> None:
        """Adds the images of a batch, one after the other: a whole batch in float64 would take twice its memory."""
        self.count += len(batch)
        tokens = subject.tokens
        for row in batch:
            values: Arrays = {}
            if "attention" in subject.capture and tokens:
                attention = [x[None] for x in row.outputs.attention or ()]
                before = [x[..., : tokens.patches.stop, : tokens.patches.stop] for x in attention]
                patch = subject.module.pixels((1, 1))
                values["distance"] = attention_distance(
                    before, tokens.grid, patch, tokens.class_token, tokens.registers
                )
                values["entropy"] = entropy(attention)
            if tokens:
                values["norms"] = np.stack([_norms(x, tokens) for x in row.outputs.layers or ()])
            for name, value in values.items():
                known = ~np.isnan(value)  # a head that attends to no patch of an image has no distance there
                self._sums[name] = self._sums.get(name, 0) + np.where(known, value, 0)
                self._counts[name] = self._counts.get(name, 0) + known

    def arrays(self) -> Arrays:
        """The means."""
        counts = {name: np.where(x > 0, x, np.nan) for name, x in self._counts.items()}
        return {name: total / counts[name] for name, total in self._sums.items()}


def norm_names(tokens: Tokens) -> list[str]:
    names = {"patches, median": True, "patches, largest": True, "class token": tokens.class_token}
    names |= {"registers, mean": tokens.registers > 0, "detection tokens, mean": tokens.after > 0}
    return [name for name, has in names.items() if has]


def _norms(layer: np.ndarray, tokens: Tokens) -> np.ndarray:
    """Of one image's tokens after a layer, in the order of `norm_names`."""
    norms = np.linalg.norm(np.asarray(layer, np.float64), axis=-1)
    patches = norms[tokens.patches]
    values = [np.median(patches), patches.max()]
    values += [norms[0]] if tokens.class_token else []
    values += [norms[int(tokens.class_token) : tokens.first].mean()] if tokens.registers else []
    values += [norms[tokens.patches.stop :].mean()] if tokens.after else []
    return np.array(values)
