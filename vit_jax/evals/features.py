"""Frozen features of whole splits, of any layer: probes are fitted to them, and those that read the same share them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vit_jax import partition
from vit_jax.data.open import open_source
from vit_jax.data.source import Source
from vit_jax.evals.base import Bound, Exif, Scorer, Scores, read_split
from vit_jax.types import DatasetSpec, Duration, Outputs, UserError

Pool = Literal["representation", "token", "mean"]
Features = tuple[np.ndarray, np.ndarray]  # float (n, d), label (n,)


@dataclasses.dataclass(kw_only=True)
class Probe:
    """The shared part of evaluators that fit a predictor to the features of one split and score it on those of another.

    Args:
      train_split, test_split: the split that the predictor is fitted to, and the split that is scored.
      dataset, data_dir, exif: as in the data section; those of the training set where a config leaves them out.
      resolution: (h, w) of the model's images, pixels; the training resolution where a config leaves it out.
      layer: the block whose tokens are pooled, counted from 1 and before the final norm; 0 for the model's last tokens, after it.
      pool: `representation` reads what the head reads (`pre_logits`; layer 0 only), `token` the class token, `mean` the mean over
        the patches.
      batch_size: global batch size.
      every: how often it runs; the last step is always scored.
    """

    train_split: str
    test_split: str
    dataset: str = ""
    data_dir: str = ""
    exif: Exif = ""
    resolution: tuple[int, int] = (0, 0)
    layer: int = 0
    pool: Pool = "representation"
    batch_size: int = 512
    every: Duration = "10%"
    _sources: list[Source] = dataclasses.field(default_factory=list, init=False, repr=False)

    def open(self) -> list[DatasetSpec]:
        """Opens both splits."""
        if self.layer < 0 or (self.layer and self.pool == "representation"):
            raise UserError(
                f"layer={self.layer} and pool={self.pool}; expected layer=0, or a block from 1 on with pool=token or pool=mean"
            )
        self._sources = [open_source(self.dataset, x, self.data_dir) for x in (self.train_split, self.test_split)]
        return [source.spec for source in self._sources]

    def view(self) -> str:
        """The recipe that prepares images."""
        return "fewshot"

    def score(self, train: Features, test: Features, mesh: Mesh) -> Scores:
        """Fits the predictor and scores it."""
        raise NotImplementedError

    def bind(self, model: Bound) -> Scorer:
        """See `Evaluator.bind`.

        Raises:
          UserError: the model has no such layer or token, or the batch size does not divide over its devices.
        """
        assert self._sources, "open() comes first"
        partition.check_batch_size(self.batch_size, model.mesh, path="batch_size")
        patches = 0
        if self.pool != "representation":
            assert model.grid is not None, "pooling needs to know which tokens are patches"
            gh, gw = model.grid(self.resolution)
            patches = gh * gw
        features = jit_features(model.forward, model.mesh, self.layer, self.pool, patches)
        if model.shapes is not None and patches:
            batch = jax.ShapeDtypeStruct((model.mesh.size, *self.resolution, 3), np.uint8)
            choice = self.layer, self.pool, patches
            jax.eval_shape(lambda params, x: select(model.forward, params, x, *choice), model.shapes, batch)
        store = model.shared.setdefault("features", FeatureStore())
        splits = self.train_split, self.test_split
        keys = [store.want(self._identity(split), features) for split in splits]

        def score(params: Any) -> Scores:
            train, test = (
                store.get(key, params, lambda step, s=source: self._extract(step, params, s, model.mesh))
                for key, source in zip(keys, self._sources, strict=True)
            )
            return self.score(train, test, model.mesh)

        return score

    def _identity(self, split: str) -> tuple[Any, ...]:
        """Everything that the features of a split depend on besides the parameters."""
        data = self.dataset, split, self.data_dir, self.exif, self.view(), self.resolution
        return *data, self.layer, self.pool, self.batch_size

    def _extract(self, step: Callable[..., Any], params: Any, source: Source, mesh: Mesh) -> Features:
        size = {"resolution": self.resolution, "batch_size": self.batch_size}
        return extract_features(step, params, source, mesh, recipe=self.view(), exif=self.exif, **size)  # type: ignore[arg-type]


class FeatureStore:
    """Features that several probes of one model read: kept from the first that asks until the last has them."""

    def __init__(self) -> None:
        self._wanted: Counter[tuple[Any, ...]] = Counter()
        self._steps: dict[tuple[Any, ...], Callable[..., Any]] = {}
        self._held: list[tuple[tuple[Any, ...], list[Any], Features, int]] = []

    def want(self, key: tuple[Any, ...], step: Callable[..., Any]) -> tuple[Any, ...]:
        """Says that a probe will read the features `key`, which `step` computes for a batch; returns the key."""
        self._wanted[key] += 1
        self._steps.setdefault(key, step)
        return key

    def get(self, key: tuple[Any, ...], params: Any, compute: Callable[[Callable[..., Any]], Features]) -> Features:
        """The features of some parameters, computed unless an earlier probe did."""
        leaves = jax.tree.leaves(params)
        # Steps of training take over the memory of the parameters before them: those features are of no more use.
        self._held = [held for held in self._held if not any(getattr(x, "is_deleted", bool)() for x in held[1])]
        for i, (other, theirs, features, left) in enumerate(self._held):
            if other == key and all(a is b for a, b in zip(leaves, theirs, strict=True)):
                self._held[i : i + 1] = [(key, theirs, features, left - 1)] if left > 1 else []
                return features
        features = compute(self._steps[key])
        if self._wanted[key] > 1:
            features[0].flags.writeable = features[1].flags.writeable = False
            self._held.append((key, leaves, features, self._wanted[key] - 1))
        return features


def select(
    forward: Callable[..., Any],
    params: Any,
    image: Any,
    layer: int = 0,
    pool: Pool = "representation",
    patches: int = 0,
) -> jax.Array:
    """The features of a batch of images, (b, d); see `Probe`.

    Args:
      forward: from `models.build.make_forward`.
      params: the parameters.
      image: uint8 (b, h, w, 3).
      layer, pool: see `Probe`.
      patches: number of the tokens that are patches; they are the last ones.

    Raises:
      UserError: the model has no such layer, or no class token.
    """
    if pool == "representation":
        return forward(params, image).pre_logits
    outputs: Outputs = forward(params, image, capture=("layers",)) if layer else forward(params, image)
    layers = outputs.layers or ()
    if layer > len(layers):
        raise UserError(f"layer={layer} is none of the model's {len(layers)} blocks")
    tokens = layers[layer - 1] if layer else outputs.tokens  # b n d
    if pool == "mean":
        return tokens[:, -patches:].astype(jnp.float32).mean(axis=1)
    if tokens.shape[1] == patches:
        raise UserError("pool=token reads the class token, and the model has none; use pool=mean")
    return tokens[:, 0].astype(jnp.float32)


def jit_features(
    forward: Callable[..., Any], mesh: Mesh, layer: int = 0, pool: Pool = "representation", patches: int = 0
) -> Callable[..., Any]:
    """(params, batch) -> (features, label, mask) of the batch, on every device; see `select`."""
    return jax.jit(
        lambda params, batch: (select(forward, params, batch.image, layer, pool, patches), batch.target, batch.mask),
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
    recipe: str = "fewshot",
) -> Features:
    """Features (n, d) and label (n,) of a whole split, in the split's order; `features` comes from `jit_features`."""
    batches = read_split(
        source,
        recipe=recipe,
        resolution=resolution,
        batch_size=batch_size,
        mesh=mesh,
        max_corrupt=0,
        exif=exif,
    )
    parts = [jax.device_get(features(params, batch)) for batch, _ in batches]
    x, y, mask = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    return x[mask > 0], y[mask > 0]
