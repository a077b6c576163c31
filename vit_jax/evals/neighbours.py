"""Nearest neighbours: the classes of the most similar training examples vote (arXiv 2104.14294, section 4.1)."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vit_jax.evals.base import Scores
from vit_jax.evals.features import Features, Probe
from vit_jax.evals.linear import on_every_device, put_rows
from vit_jax.types import DatasetSpec, UserError

AT_ONCE = 256  # test examples that are compared together


@dataclasses.dataclass(kw_only=True)
class NearestNeighbours(Probe):
    """Scores `{k}nn`, the top-1 of a vote among the k training examples of the largest cosine, each with weight
    exp(cosine / temperature), and num_examples.

    Args:
      recipe: how the images of both splits are prepared.
      neighbours: the values of k; a k above the number of training examples uses all of them.
      temperature: of the weights.
      Others: see `Probe`.

    Source: DINO's `eval_knn.py`.
    """

    recipe: Literal["eval_crop", "eval", "fewshot"] = "eval_crop"
    neighbours: tuple[int, ...] = (10, 20, 100, 200)
    temperature: float = 0.07

    def view(self) -> str:
        """The recipe that prepares images."""
        return self.recipe

    def open(self) -> list[DatasetSpec]:
        """Opens both splits."""
        if min(self.neighbours, default=0) < 1 or self.temperature <= 0:
            raise UserError(
                f"neighbours is {self.neighbours} and temperature {self.temperature}; expected numbers of 1 or more, and above 0"
            )
        return super().open()

    def score(self, train: Features, test: Features, mesh: Mesh) -> Scores:
        """Compares each test example with all training examples."""
        classes = self._sources[0].spec.num_classes
        votes = vote(train, test[0], self.neighbours, self.temperature, classes, mesh)
        values = {f"{k}nn": float((found == test[1]).mean()) for k, found in zip(self.neighbours, votes, strict=True)}
        return Scores(values | {"num_examples": len(test[0])})


def vote(
    train: Features, test: np.ndarray, neighbours: tuple[int, ...], temperature: float, classes: int, mesh: Mesh
) -> np.ndarray:
    """The class of each test example for each k, int32 (len(neighbours), m); of classes with equal votes, the lowest."""
    x, y, real = put_rows((_unit(train[0]), train[1].astype(np.int32)), mesh)
    most = min(max(neighbours), len(train[0]))
    parts = []
    for start in range(0, len(test), AT_ONCE):
        part = _unit(test[start : start + AT_ONCE])
        padded = np.pad(part, ((0, AT_ONCE - len(part)), (0, 0)))
        found = _vote(x, y, real, padded, most, neighbours, temperature, classes)
        parts.append(np.asarray(on_every_device(found, mesh))[:, : len(part)])
    return np.concatenate(parts, axis=1)


def _unit(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


@functools.partial(jax.jit, static_argnames=("most", "neighbours", "temperature", "classes"))
def _vote(
    x: jax.Array,
    y: jax.Array,
    real: jax.Array,
    test: jax.Array,
    most: int,
    neighbours: tuple[int, ...],
    temperature: float,
    classes: int,
) -> jax.Array:
    cosine = jnp.matmul(test, x.T, precision="highest")  # m n
    cosine, nearest = jax.lax.top_k(jnp.where(real[None] > 0, cosine, -jnp.inf), most)
    # exp(1 / 0.07) is 1.6e6: relative to the nearest, sums of weights cannot overflow at any temperature.
    weight = jnp.exp((cosine - cosine[:, :1]) / temperature)  # m k
    labels = y[nearest]
    rows = jnp.arange(test.shape[0])[:, None]
    found = []
    for k in neighbours:
        ballots = jnp.zeros((test.shape[0], classes)).at[rows, labels[:, :k]].add(weight[:, :k])
        found.append(jnp.argmax(ballots, axis=1).astype(jnp.int32))
    return jnp.stack(found)
