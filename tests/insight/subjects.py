"""Small models with drawn parameters, as a checkpoint would be loaded, and images for them."""

from __future__ import annotations

import types

import jax
import numpy as np
import PIL.Image
from flax.traverse_util import flatten_dict, unflatten_dict

from vit_jax.convert.load import Loaded
from vit_jax.insight.images import open_images
from vit_jax.models.build import MODELS, init_params

SIZES = {"patch_size": (4, 4), "width": 24, "depth": 2, "mlp_dim": 32, "num_heads": 3}
NAMES = ("cat", "dog", "emu")


def loaded(name="vit", resolution=(16, 16), **fields):
    """A model whose parameters all matter, heads and biases too."""
    sizes = {} if name == "resnet" else SIZES
    if name == "mixer":
        sizes = {key: SIZES[key] for key in ("patch_size", "width", "depth")} | {
            "tokens_mlp_dim": 8,
            "channels_mlp_dim": 8,
        }
    settings = {"num_classes": 3, **sizes, **fields}
    module = MODELS[name](**settings)
    flat = flatten_dict(init_params(module, jax.random.key(0), resolution), sep="/")
    rng = np.random.default_rng(1)
    flat = {key: np.asarray(x) + 0.3 * rng.standard_normal(x.shape, np.float32) for key, x in flat.items()}
    meta = {"class_names": list(NAMES), "config": {"data": {"resolution": resolution}}}
    source = types.SimpleNamespace(meta=meta, path=f"runs/{name}", format="run")
    settings["name"] = name
    return Loaded(module, unflatten_dict(flat, sep="/"), source, settings, module.table_grid(resolution), [])


def images(folder, count=3, size=(20, 24)):
    """PNGs of noise in a folder, opened."""
    rng = np.random.default_rng(2)
    folder.mkdir(exist_ok=True)
    for i in range(count):
        PIL.Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{i}.png")
    return open_images([str(folder)], "", 0)


def attending(seen, added=()):
    """Replaces `numpy_vit.attention`: appends the weights that it computes to `seen`, {(layer, head, query, key): x} added."""

    def attention(queries, inputs, p, name):
        layer, out = len(seen), p[f"{name}/out/bias"]
        weights = []
        for i in range(p[f"{name}/query/kernel"].shape[1]):
            q, k, v = (
                x @ p[f"{name}/{part}/kernel"][:, i] + p[f"{name}/{part}/bias"][i]
                for x, part in ((queries, "query"), (inputs, "key"), (inputs, "value"))
            )
            scores = np.exp(q @ k.swapaxes(1, 2) / q.shape[-1] ** 0.5)
            w = scores / scores.sum(axis=-1, keepdims=True)
            for (at, head, query, key), x in dict(added).items():
                if (at, head) == (layer, i):
                    w[:, query, key] += x
            weights.append(w)
            out = out + w @ v @ p[f"{name}/out/kernel"][i]
        seen.append(np.stack(weights, axis=1))
        return out

    return attention


def of_numpy(params, classes=("a", "b", "c", "d", "e"), pool="token"):
    """The model of `numpy_vit.draw_params()`, whose images are 8x12."""
    module = MODELS["vit"](num_classes=5, patch_size=(4, 6), width=8, depth=2, mlp_dim=12, num_heads=2, pool=pool)
    meta = {"class_names": list(classes), "config": {"data": {"resolution": (8, 12)}}}
    source = types.SimpleNamespace(meta=meta, path="runs/numpy", format="run")
    return Loaded(module, unflatten_dict(dict(params), sep="/"), source, {"name": "vit", "num_classes": 5}, (2, 2), [])
