"""A checkpoint from anywhere, opened by what it contains and not by what it is called.

Formats: npz of the original releases (ViT, hybrids, Mixer, BiT) and of big_vision; safetensors of Hugging Face
transformers and of timm, as a file or as a folder with its config; runs of our own; names of released models.

Called by: convert.load, assemble (`init`), scripts.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from etils import epath

from vit_jax.convert import architecture, released, torch_names
from vit_jax.convert.names import POSITIONS, native_names, with_class_position
from vit_jax.convert.npz import read_npz
from vit_jax.convert.safetensor import INDEX, read_json, read_safetensors
from vit_jax.train.checkpoint import read_params, run_folder
from vit_jax.types import UserError

Weights = Literal["raw", "average"]

# What our own files say of themselves inside a foreign format's config, or beside an npz.
OWN_SECTION = "vit_jax"

HUGGING_FACE_GELU = {"gelu": "erf", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu_fast": "tanh"}
TIMM_GELU = {"gelu": "erf", "gelu_tanh": "tanh", "gelu_pytorch_tanh": "tanh"}


@dataclasses.dataclass
class Source:
    """A checkpoint in our terms.

    Args:
      path: as the user named it.
      format: `npz`, `hf`, `timm` or `run`.
      tensors: {our name: array as stored}, layers apart.
      settings: the model section, as far as the checkpoint tells: sizes, options, `gelu`, `norm_eps`.
      grid: (gh, gw) that the positions were trained at; None if nothing tells.
      origin: {our name: name in the file}, where they differ.
      aside: {name in the file: why no model of images has it}.
      meta: class names and preprocessing, where the checkpoint keeps them.
    """

    path: str
    format: str
    tensors: dict[str, np.ndarray]
    settings: dict[str, Any]
    grid: tuple[int, int] | None = None
    origin: dict[str, str] = dataclasses.field(default_factory=dict)
    aside: dict[str, str] = dataclasses.field(default_factory=dict)
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)


def open_source(path: str, *, num_heads: int = 0, weights: Weights = "raw") -> Source:
    """Reads a checkpoint of any format.

    Args:
      path: file, folder, or the name of a released model such as `augreg:B/16`.
      num_heads: attention heads, for a PyTorch file without a config, whose shapes do not tell.
      weights: of our own runs, the raw parameters or their Polyak average.

    Raises:
      UserError: nothing there, no such format, damaged, or no model of ours.
    """
    if released.is_name(path):
        found = released.find(path)
        source = open_source(str(released.fetch(found)), num_heads=num_heads)
        return dataclasses.replace(source, path=path)
    place = epath.Path(path).expanduser()
    if folder := run_folder(path):
        return _open_run(path, folder, weights)
    if weights == "average":
        raise UserError(f"{path} is no run of ours, so it holds no averaged weights; use init.weights=raw")
    if place.is_dir():
        return _open_folder(path, place, num_heads)
    if not place.is_file():
        raise UserError(
            f"{path} is neither a file nor a folder; expected an npz or safetensors file, a Hugging Face or timm folder, "
            f"a workdir of ours, or a released model ({released.examples()})"
        )
    with place.open("rb") as file:
        start = file.read(9)
    if start.startswith(b"PK"):
        return _open_zip(path, place)
    if start.startswith(b"\x80") and start[1:2] in b"\x02\x03\x04\x05":
        raise UserError(
            f"{path} is a Python pickle (an old PyTorch file), which can run any program and is not read here; in PyTorch "
            f"load it with weights_only=True and save it with safetensors.torch.save_file"
        )
    if start[8:9] == b"{":
        return _open_torch(path, read_safetensors(path), {}, num_heads)
    raise UserError(
        f"{path} begins with {start[:8]!r}, which is neither npz (PK) nor safetensors; if it was downloaded, it may be an "
        f"error page: look into it and download it again"
    )


def _open_run(path: str, folder: epath.Path, weights: Weights) -> Source:
    tensors, meta = read_params(folder, average=weights == "average")
    native, aside = native_names(tensors)
    settings = dict(meta.get("config", {}).get("model", {})) or architecture.infer_settings(native)
    settings = {key: tuple(x) if isinstance(x, list) else x for key, x in settings.items()}
    return Source(path, "run", native, settings, tuple(meta["grid"]), aside=aside, meta=meta)


def _open_zip(path: str, place: epath.Path) -> Source:
    with place.open("rb") as file:
        try:
            members = zipfile.ZipFile(file).namelist()
        except zipfile.BadZipFile:
            members = []  # read_npz says what is wrong
    if any(name.endswith(("data.pkl", ".pkl")) for name in members):
        raise UserError(
            f"{path} is a PyTorch file (a pickle in a zip), which can run any program and is not read here; in PyTorch load "
            f"it with weights_only=True and save it with safetensors.torch.save_file"
        )
    stored = read_npz(path)
    native, aside = native_names(stored)
    own = _read_sidecar(place)
    settings = {"gelu": "tanh", "norm_eps": 1e-6} | architecture.infer_settings(native) | own.get("model", {})
    if settings["name"] == "resnet":
        del settings["gelu"], settings["norm_eps"]
    elif settings["name"] == "mixer":
        del settings["norm_eps"]
    grid = tuple(own["grid"]) if own.get("grid") else architecture.infer_grid(native, settings)
    meta = {key: value for key, value in own.items() if key not in ("model", "grid")}
    return Source(path, "npz", native, settings, grid, aside=aside, meta=meta)


def _read_sidecar(place: epath.Path) -> dict[str, Any]:
    """What `convert.save` wrote beside an npz of ours, which has no place for a config."""
    beside = place.with_suffix(".json")
    own = read_json(beside).get(OWN_SECTION, {}) if beside.exists() else {}
    return _tuples(own)


def _tuples(own: dict[str, Any]) -> dict[str, Any]:
    if "model" in own:
        own = own | {"model": {k: tuple(x) if isinstance(x, list) else x for k, x in own["model"].items()}}
    return own


def _open_folder(path: str, place: epath.Path, num_heads: int) -> Source:
    if not any((place / name).exists() for name in ("model.safetensors", INDEX)):
        there = ", ".join(sorted(p.name for p in place.iterdir())[:8]) or "nothing"
        pickled = "; pytorch_model.bin is a pickle, which is not read here" if "pytorch_model" in there else ""
        raise UserError(
            f"{path} holds {there}{pickled}; expected checkpoints/ (a run of ours) or model.safetensors (Hugging Face, timm)"
        )
    config = read_json(place / "config.json") if (place / "config.json").exists() else {}
    return _open_torch(path, read_safetensors(path), config, num_heads)


def _open_torch(path: str, stored: dict[str, np.ndarray], config: dict[str, Any], num_heads: int) -> Source:
    hub = torch_names.hub_names(stored)
    is_timm = "patch_embed.proj.weight" in stored
    if not is_timm and "embeddings.patch_embeddings.projection.weight" not in hub:
        some = ", ".join(sorted(stored)[:4]) or "none"
        raise UserError(
            f"{path} is neither transformers' ViT (vit.embeddings.patch_embeddings.projection.weight) nor timm's "
            f"(patch_embed.proj.weight): {len(stored)} tensors, {some}, ..."
        )
    found = _timm_settings(path, config) if is_timm else _hugging_face_settings(path, config)
    kernel = stored["patch_embed.proj.weight"] if is_timm else hub["embeddings.patch_embeddings.projection.weight"]
    width = kernel.shape[0] if kernel.ndim else 0
    heads = num_heads or found.pop("num_heads", 0) or architecture.HEADS_OF_WIDTH.get(width, 0)
    if not heads or width % heads:
        raise UserError(
            f"{path} does not tell its attention heads, and {heads or 'no'} heads divide its width {width}; "
            f"give num_heads, or a folder with config.json"
        )
    rules = torch_names.TIMM if is_timm else torch_names.HUGGING_FACE
    native, origin = torch_names.to_native(stored if is_timm else hub, rules, heads)
    if not is_timm:
        whole = {name.removeprefix("vit."): name for name in stored}
        origin = {ours: whole.get(theirs, theirs) for ours, theirs in origin.items()}
    found.pop("num_heads", None)
    aside = {}
    for name in ("embeddings.mask_token", "decoder.0.weight", "decoder.0.bias"):
        if name in native:
            aside[name] = "of the masked image model, not of the encoder"
            del native[name]
    _add_absent_biases(native, origin)
    own = _tuples(config.get(OWN_SECTION, {}))
    settings = architecture.infer_settings(native) | found | own.get("model", {})
    grid = tuple(own["grid"]) if own.get("grid") else _grid_of_config(config, settings)
    grid = _place_positions(path, native, settings, grid)
    meta = {"class_names": _class_names(config)} | {k: v for k, v in own.items() if k not in ("model", "grid")}
    return Source(path, "timm" if is_timm else "hf", native, settings, grid, origin, aside, meta)  # type: ignore[arg-type]


def _hugging_face_settings(path: str, config: dict[str, Any]) -> dict[str, Any]:
    kind, act = config.get("model_type", "vit"), config.get("hidden_act", "gelu")
    if kind != "vit":
        raise UserError(f"{path}: config.json says model_type {kind!r}; expected 'vit'")
    if act not in HUGGING_FACE_GELU:
        raise UserError(f"{path}: hidden_act {act!r} is not known here; expected one of {', '.join(HUGGING_FACE_GELU)}")
    return {
        "gelu": HUGGING_FACE_GELU[act],
        "norm_eps": float(config.get("layer_norm_eps", 1e-12)),
        "num_heads": int(config.get("num_attention_heads", 0)),
    }


def _timm_settings(path: str, config: dict[str, Any]) -> dict[str, Any]:
    args = config.get("model_args") or {}
    act = args.get("act_layer", "gelu")
    if act not in TIMM_GELU:
        raise UserError(f"{path}: act_layer {act!r} is not known here; expected one of {', '.join(TIMM_GELU)}")
    settings = {"gelu": TIMM_GELU[act], "norm_eps": 1e-6, "num_heads": int(args.get("num_heads", 0))}
    pool = args.get("global_pool", config.get("global_pool"))
    known = {"token": "token", "avg": "gap", "": "unpooled"}
    if pool is not None and pool not in known:
        raise UserError(f"{path}: global_pool {pool!r} is not known here; expected token, avg or none")
    return settings | ({"pool": known[pool]} if pool is not None else {})


def _grid_of_config(config: dict[str, Any], settings: Mapping[str, Any]) -> tuple[int, int] | None:
    size = config.get("image_size") or (config.get("model_args") or {}).get("img_size")
    if size is None:
        return None
    h, w = (size, size) if isinstance(size, int) else size
    return h // settings["patch_size"][0], w // settings["patch_size"][1]


def _class_names(config: dict[str, Any]) -> list[str] | None:
    labels = config.get("id2label")
    if labels:
        return [labels[key] for key in sorted(labels, key=int)]
    return config.get("label_names")


def _add_absent_biases(native: dict[str, np.ndarray], origin: dict[str, str]) -> None:
    """A model without qkv biases computes what one with zero biases does."""
    for name in [name for name in native if name.endswith(("/query/kernel", "/key/kernel", "/value/kernel"))]:
        bias = name.removesuffix("kernel") + "bias"
        if bias not in native and native[name].ndim == 3:
            native[bias] = np.zeros(native[name].shape[1:], native[name].dtype)
            origin[bias] = "nothing: zeros, as the source has no qkv bias"


def _place_positions(
    path: str, native: dict[str, np.ndarray], settings: Mapping[str, Any], grid: tuple[int, int] | None
) -> tuple[int, int] | None:
    """Brings timm's positions to ours, where entries go to the class token, if any, and the patches; returns the grid.

    timm gives an entry to every prefix token (class token, registers) or to none. Which it was is told by the grid, or by
    which of the two counts is square.
    """
    positions = native.get(POSITIONS)
    if positions is None or positions.ndim != 3:
        return grid
    has_class = architecture.has_class_token(settings)
    registers = int(settings.get("registers", 0))
    entries, prefix = positions.shape[1], has_class + registers

    def square(n: int) -> tuple[int, int] | None:
        side = round(max(n, 0) ** 0.5)
        return (side, side) if side * side == n and n > 0 else None

    without, with_prefix = square(entries), square(entries - prefix)
    if grid is not None:
        patches = grid[0] * grid[1]
        if patches not in (entries, entries - prefix):
            return grid  # refused where it is fitted, with both numbers
        is_prefixed = patches == entries - prefix
    elif prefix and with_prefix and without:
        raise UserError(
            f"{path}: {entries} positions fit a square grid with and without prefix tokens; give grid=(gh, gw)"
        )
    else:
        is_prefixed = with_prefix is not None or without is None
        grid = with_prefix if is_prefixed else without
    if not is_prefixed:
        native[POSITIONS] = with_class_position(positions, has_class)
    elif registers:
        first = int(has_class)
        native["Transformer/registers"] = native["Transformer/registers"] + positions[:, first : first + registers]
        native[POSITIONS] = np.concatenate([positions[:, :first], positions[:, first + registers :]], axis=1)
    return grid


def describe_settings(settings: Mapping[str, Any]) -> str:
    """A model section on one line."""
    return json.dumps(dict(settings), default=str)
