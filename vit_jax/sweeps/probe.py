"""A run of a sweep that trains nothing but a predictor of frozen features: few-shot ridge regression, whose features are computed
once per checkpoint and data set, or an evaluator of `evals`, such as the linear probe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from vit_jax.sweeps.results import hash_of


def probe(config: ml_collections.ConfigDict, features_folder: Path) -> dict[str, Any]:
    """Scores one draw of examples.

    Args:
      config: from `get_probe` of `configs/fewshot.py`, or of `configs/linear.py`, which has a section `evaluator`.
      features_folder: folder where features are kept between runs.

    Returns:
      scores `{"5shot": fraction, ...}`, `short` {shots: number of classes with fewer examples, which use all of them},
      num_examples, num_params, resolution, class_names, and the forward FLOPs computed.

    Raises:
      UserError: the checkpoint or the data is missing.
    """
    if "evaluator" in config:
        return _evaluate(config)
    from vit_jax.data.open import open_source
    from vit_jax.evals.fewshot import choose_examples, drawing_order, ridge_predict

    sources = [open_source(config.dataset, s, config.data_dir) for s in (config.train_split, config.test_split)]
    features = _features(config, sources, features_folder)
    classes = sources[0].spec.num_classes
    order, counts = drawing_order(sources[0]), np.bincount(features["train_y"], minlength=classes)
    scores = {}
    for k in config.shots:
        chosen = choose_examples(features["train_y"], classes, k, config.seed, order)
        support = features["train_x"][chosen], features["train_y"][chosen]
        predicted = ridge_predict(*support, features["test_x"], num_classes=classes, l2_reg=config.l2_reg)
        scores[f"{k}shot"] = float(np.mean(predicted == features["test_y"]))
    return {
        "scores": scores,
        "short": {k: short for k in config.shots if (short := int((counts < k).sum()))},
        "num_examples": len(features["test_y"]),
        "num_params": int(features["num_params"]),
        "flops": int(features["flops_per_image"]) * (len(features["test_y"]) + len(features["train_y"])),
        "resolution": tuple(map(int, features["resolution"])),
        "class_names": sources[0].spec.class_names,
    }


def _evaluate(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Scores an evaluator of frozen features; see `probe`."""
    from vit_jax import config as configs
    from vit_jax import partition
    from vit_jax.convert.load import load, resolution_of
    from vit_jax.evals.base import Bound
    from vit_jax.evals.build import EVALUATORS
    from vit_jax.models.build import count_params, make_forward

    size = (config.resolution, config.resolution) if config.resolution else None
    loaded = load(config.init, stored_pixels=True, channels=3, resolution=size)
    resolution, mesh = size or resolution_of(loaded), partition.make_mesh(1)
    shared = ("dataset", "data_dir", "exif", "train_split", "test_split", "batch_size", "seed")
    section = {**{key: config[key] for key in shared}, "resolution": resolution, **config.evaluator}
    evaluator = configs.build(EVALUATORS[config.evaluator.name], section)
    specs = evaluator.open()
    shapes, forward = loaded.params, make_forward(loaded.module)
    bound = Bound(forward, None, mesh, loaded.settings["num_classes"], loaded.module.grid, shapes)
    scorer = evaluator.bind(bound)
    scores = dict(scorer(partition.put_tree(loaded.params, partition.param_sharding(loaded.params, mesh))).values)
    return {
        "scores": scores,
        "short": {},
        "num_examples": int(scores.pop("num_examples")),
        "num_params": count_params(loaded.params),
        "flops": _count(loaded, resolution) * sum(spec.num_examples for spec in specs),
        "resolution": resolution,
        "class_names": specs[0].class_names,
    }


def _features(config: ml_collections.ConfigDict, sources: list[Any], folder: Path) -> dict[str, np.ndarray]:
    """Features and labels of both splits, read from the folder, or computed and written to it."""
    from vit_jax.convert.load import fingerprint

    stat = fingerprint(config.init)
    specs = [[s.name, s.split, s.num_examples, s.num_classes, s.class_names] for s in (x.spec for x in sources)]
    key = hash_of([config.init, stat, config.resolution, config.data_dir, config.exif, specs])
    file = folder / f"{Path(config.dataset).name}-{key}.npz"
    if file.exists():
        with np.load(file) as stored:
            return dict(stored)
    computed = _compute(config, sources)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{file.stem}.{os.getpid()}.npz"  # renamed when complete; two processes would write the same
    np.savez(partial, **computed)
    partial.replace(file)
    return computed


def _compute(config: ml_collections.ConfigDict, sources: list[Any]) -> dict[str, Any]:
    from vit_jax import partition
    from vit_jax.convert.load import load, resolution_of
    from vit_jax.evals.features import extract_features, jit_features
    from vit_jax.models.build import count_params, make_forward

    size = (config.resolution, config.resolution) if config.resolution else None
    loaded = load(config.init, stored_pixels=True, channels=3, resolution=size)
    shape: dict[str, Any] = {
        "resolution": size or resolution_of(loaded),
        "batch_size": config.batch_size,
        "exif": config.exif,
    }
    mesh = partition.make_mesh(1)
    partition.check_batch_size(config.batch_size, mesh, path="batch_size")
    params = partition.put_tree(loaded.params, partition.param_sharding(loaded.params, mesh))
    forward = make_forward(loaded.module)
    features = jit_features(forward, mesh)
    (train_x, train_y), (test_x, test_y) = (extract_features(features, params, s, mesh, **shape) for s in sources)
    return {
        "train_x": train_x,
        "train_y": train_y,
        "test_x": test_x,
        "test_y": test_y,
        "resolution": np.array(shape["resolution"]),
        "num_params": count_params(loaded.params),
        "flops_per_image": _count(loaded, shape["resolution"]),
    }


def forward_flops(checkpoint: str, resolution: int) -> int:
    """FLOPs of one image's features; `resolution` in pixels, 0 for the checkpoint's own."""
    from vit_jax.convert.load import load, resolution_of

    size = (resolution, resolution) if resolution else None
    loaded = load(checkpoint, stored_pixels=True, channels=3, resolution=size)
    return _count(loaded, size or resolution_of(loaded))


def _count(loaded: Any, resolution: tuple[int, int]) -> int:
    import jax

    from vit_jax.flops import count_flops
    from vit_jax.models.build import make_forward

    image = jax.ShapeDtypeStruct((1, *resolution, 3), np.uint8)
    return count_flops(jax.jit(make_forward(loaded.module)).trace(loaded.params, image).jaxpr)
