"""Writes a checkpoint's features of a data set or of photographs, shard by shard; for notebooks and `vit_jax features`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import partition
from vit_jax.convert.load import Loaded, fingerprint, load, resolution_of
from vit_jax.data.formats.pictures import Pictures, find_images
from vit_jax.data.image.recipes import check_recipe
from vit_jax.data.open import open_source
from vit_jax.data.source import Source
from vit_jax.detect import Detector, is_detector
from vit_jax.evals.base import read_split
from vit_jax.evals.features import select
from vit_jax.evals.stored import DESCRIPTION, Format, count_shards, read_shard, shard_path, write_shard
from vit_jax.files import read_json
from vit_jax.models.build import make_forward
from vit_jax.predict import transform_of
from vit_jax.types import UserError

Pool = Literal["none", "token", "mean"]
SHARD_BYTES = 2**28
MOST = 4096  # examples of a shard: an interrupted run loses at most as many


@dataclasses.dataclass(frozen=True)
class Written:
    """What `write_features` left.

    Args:
      folder: where.
      count: examples with features.
      shards: of the whole folder.
      kept: shards that an earlier run had written.
      missing: ids of the examples whose images do not decode.
    """

    folder: str
    count: int
    shards: int
    kept: int
    missing: list[str]


def write_features(
    model: str,
    data: str | Sequence[str],
    to: str | os.PathLike[str],
    *,
    split: str = "",
    layer: str | int = "pre_logits",
    pool: Pool = "none",
    format: Format = "safetensors",
    half: bool = False,
    recipe: str = "",
    data_dir: str = "",
    batch_size: int = 64,
    shard_size: int = 0,
    max_corrupt: int = 100,
    watch: Callable[[Iterable[int], int], Iterable[int]] = lambda shards, total: shards,
    **overrides: Any,
) -> Written:
    """Computes features on all devices and writes them to a folder. The same call continues an interrupted one after its last
    whole shard.

    Args:
      model: see `load_model`.
      data: with a split, a data set as `open_source` takes it; without one, what `find_images` takes: image files, folders, tar
        shards.
      to: the folder.
      split: in TFDS's syntax; "" for images without labels.
      layer: `pre_logits`, what the head reads; `pooled`, before its tanh layer, if it has one; `tokens`, the last ones, after the
        final norm; or the number of a block, from 1, for its tokens.
      pool: of tokens, `none` keeps them all, `token` takes the class token, `mean` averages the patches.
      format: of the shards, `safetensors` or `npz`.
      half: whether features are stored as float16.
      recipe: how images are prepared; "" as the checkpoint's run prepared those that it scored.
      data_dir: folder of the TFDS data sets.
      batch_size: images per step, over all devices.
      shard_size: examples per shard; 0 for at most 4,096 and 256 MiB.
      max_corrupt: images that may fail to decode: they are left out and reported; more stop the run.
      watch: wraps the shards to be written, for a progress bar.
      **overrides: see `load_model`.

    Raises:
      UserError: checkpoint or data are missing, the model has no such layer, or the folder holds something else.
    """
    loaded = load(model, stored_pixels=True, **{"channels": 3, **overrides})
    names = [data] if isinstance(data, str) else list(data)
    source: Source = (
        open_source(names[0], split, data_dir, multi_label=True, values=True, boxes=True)
        if split
        else Pictures(find_images(names))
    )
    mesh = partition.make_mesh(1)
    partition.check_batch_size(batch_size, mesh, path="--batch")
    usual = (Detector.of(loaded).transform if is_detector(loaded) else transform_of(loaded)).recipe
    check_recipe(recipe or usual, "--recipe")
    compute = make_compute(loaded, layer, pool, half)
    shape = jax.eval_shape(compute, loaded.params, np.zeros((1, *resolution_of(loaded), 3), np.uint8)).shape[1:]
    each = int(np.prod(shape)) * (2 if half else 4)
    shard_size = shard_size or max(1, min(MOST, SHARD_BYTES // each) // batch_size) * batch_size
    description = {
        "model": model,
        "fingerprint": hashlib.sha256(json.dumps(fingerprint(model)).encode()).hexdigest(),
        "overrides": json.loads(json.dumps(overrides, default=str)),
        "data": names,
        "split": split,
        "data_fingerprint": source.fingerprint().hex(),
        **{"layer": layer, "pool": pool, "shape": list(shape), "dtype": "float16" if half else "float32"},
        **{"recipe": recipe or usual, "resolution": list(resolution_of(loaded))},
        **{"classes": list(source.spec.class_names), "num_examples": len(source), "shard_size": shard_size},
        "format": format,
    }
    folder = Path(to).expanduser()
    try:
        return _write(folder, description, source, jax.jit(compute), loaded, mesh, batch_size, max_corrupt, watch)
    except OSError as error:
        raise UserError(f"{to} cannot be written ({error.strerror or error}); the same command continues") from error


def make_compute(loaded: Loaded, layer: str | int, pool: Pool, half: bool) -> Callable[[Any, Any], jax.Array]:
    """(params, uint8 (b, h, w, 3)) -> features (b, ...) of a layer; see `write_features`.

    Raises:
      UserError: no such layer, or one without tokens to pool.
    """
    whole = ("pre_logits", "pooled")
    block = int(layer) if str(layer).isdecimal() else 0
    if (not block and layer not in (*whole, "tokens")) or pool not in get_args(Pool):
        raise UserError(
            f"layer={layer} and pool={pool}; expected pre_logits, pooled, tokens or a block from 1 on, and none, token or mean"
        )
    if pool != "none" and (layer in whole or (is_detector(loaded) and pool == "mean")):
        raise UserError(
            f"pool={pool} is for the tokens of classifiers and masked models; leave it out with layer={layer}"
        )
    forward = make_forward(loaded.module)
    gh, gw = loaded.module.grid(resolution_of(loaded))

    def compute(params: Any, image: Any) -> jax.Array:
        if pool != "none":
            x = select(forward, params, image, block, pool, gh * gw)
        elif block:
            layers = forward(params, image, capture=("layers",)).layers or ()
            if block > len(layers):
                raise UserError(f"layer={layer} is none of the model's {len(layers)} blocks")
            x = layers[block - 1]
        else:
            x = getattr(forward(params, image), str(layer))
        return x.astype(jnp.float16 if half else jnp.float32)

    return compute


def _write(
    folder: Path,
    description: dict[str, Any],
    source: Source,
    compute: Callable[..., Any],
    loaded: Loaded,
    mesh: Any,
    batch_size: int,
    max_corrupt: int,
    watch: Callable[[Iterable[int], int], Iterable[int]],
) -> Written:
    _claim(folder, description)
    params = partition.put_tree(loaded.params, partition.param_sharding(loaded.params, mesh))
    total, order = count_shards(description), source.reading_order()
    rank = None if order is None else np.argsort(order)
    paths = [shard_path(folder, description, i) for i in range(total)]
    waiting = [i for i, path in enumerate(paths) if not path.exists()]
    kept = [i for i in range(total) if i not in set(waiting)]
    seen = [read_shard(paths[i])[0]["index"] for i in kept]
    missing = sum(len(_places(description, i)) for i in kept) - sum(map(len, seen))
    for i in watch(waiting, len(waiting)):
        places = _places(description, i)
        batches = read_split(
            source.subset(places),
            recipe=description["recipe"],
            resolution=tuple(description["resolution"]),
            batch_size=batch_size,
            mesh=mesh,
            max_corrupt=max(max_corrupt - missing, 0),
        )
        parts = [jax.device_get((compute(params, batch.image), batch.target, batch.mask)) for batch, _ in batches]
        real = np.concatenate([mask for _, _, mask in parts]) > 0
        index = places[real[: len(places)]]
        arrays = {"features": np.concatenate([x for x, _, _ in parts])[real], "index": index}
        if description["split"] and isinstance(parts[0][1], np.ndarray):
            arrays["labels"] = np.concatenate([target for _, target, _ in parts])[real]
        if rank is not None:
            arrays["rank"] = rank[index]
        write_shard(paths[i], arrays, _ids(source, description["split"], index))
        seen.append(index)
        missing += len(places) - len(index)
    lost = np.setdiff1d(np.arange(len(source)), np.concatenate(seen))
    return Written(str(folder), len(source) - len(lost), total, len(kept), _ids(source, description["split"], lost))


def _claim(folder: Path, description: dict[str, Any]) -> None:
    """Writes the description, or compares it with that of the run that began the folder; removes what that run left half."""
    if (folder / DESCRIPTION).exists():
        began = read_json(folder / DESCRIPTION)
        if other := [key for key in description if began.get(key) != description[key]]:
            key = other[0]
            raise UserError(
                f"{folder} holds features of another {key} ({began.get(key)!r}, here {description[key]!r}); give another --to"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} holds something else; give a new folder, or one of features to continue")
    for partial in folder.glob(".features-*.partial") if folder.exists() else ():
        partial.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{DESCRIPTION}.partial"
    partial.write_text(json.dumps(description, indent=2) + "\n")
    partial.replace(folder / DESCRIPTION)


def _places(description: dict[str, Any], number: int) -> np.ndarray:
    """The examples of a shard, int64 (n,)."""
    size, count = int(description["shard_size"]), int(description["num_examples"])
    return np.arange(number * size, min((number + 1) * size, count))


def _ids(source: Source, split: str, index: np.ndarray) -> list[str]:
    """Names of examples: paths where the data has them."""
    return source.ids(index.tolist()) or [f"{split}:{i}" for i in index.tolist()]
