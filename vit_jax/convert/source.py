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

from vit_jax.convert import architecture, claims, released, torch_names
from vit_jax.convert.names import POSITIONS, native_names, rename, with_class_position
from vit_jax.convert.npz import read_npz
from vit_jax.convert.safetensor import INDEX, read_json, read_safetensors
from vit_jax.train.checkpoint import read_params
from vit_jax.train.folders import run_folder
from vit_jax.types import UserError

Weights = Literal["raw", "average"]


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
      meta: class names and preprocessing, where the checkpoint keeps them; `pixel_mean` and `pixel_std` where its images
        are normalised by others than 0.5 and 0.5.
      assumed: what nothing told and was taken for granted, a sentence each.
    """

    path: str
    format: str
    tensors: dict[str, np.ndarray]
    settings: dict[str, Any]
    grid: tuple[int, int] | None = None
    origin: dict[str, str] = dataclasses.field(default_factory=dict)
    aside: dict[str, str] = dataclasses.field(default_factory=dict)
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)
    assumed: list[str] = dataclasses.field(default_factory=list)


def open_source(
    path: str, *, num_heads: int = 0, weights: Weights = "raw", grid: tuple[int, int] | None = None
) -> Source:
    """Reads a checkpoint of any format.

    Args:
      path: file, folder, or the name of a released model such as `augreg:B/16`.
      num_heads: attention heads, for a PyTorch file without a config, whose shapes do not tell.
      weights: of our own runs, the raw parameters or their Polyak average.
      grid: (gh, gw) that the positions were trained at, for a file that does not tell.

    Raises:
      UserError: nothing there, no such format, damaged, or no model of ours.
    """
    if released.is_name(path):
        found = released.find(path)
        source = open_source(str(released.fetch(found)), num_heads=num_heads, weights=weights, grid=grid)
        return dataclasses.replace(source, path=path)
    try:
        source = _open(path, num_heads, weights, grid)
        if source.format != "run":
            claims.check_settings(source.settings)
    except UserError as error:
        if path in str(error):
            raise
        raise UserError(f"{path}: {error}") from error
    except (OSError, ImportError, KeyError) as error:
        if isinstance(error, KeyError) and "://" not in path:
            raise
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"{path} cannot be reached ({reason}); give a local path, or gs:// with gcsfs installed"
        ) from error
    return source if grid is None else dataclasses.replace(source, grid=grid)


def _open(path: str, num_heads: int, weights: Weights, grid: tuple[int, int] | None) -> Source:
    place = epath.Path(path).expanduser()
    if folder := run_folder(path):
        return _open_run(path, folder, weights)
    if weights == "average":
        raise UserError(f"{path} is no run of ours, so it holds no averaged weights; use init.weights=raw")
    if place.is_dir():
        return _open_folder(path, place, num_heads, grid)
    if not place.is_file():
        raise UserError(
            f"{path} is neither a file nor a folder; expected an npz or safetensors file, a Hugging Face or timm folder, "
            f"a workdir of ours, or a released model ({released.examples()})"
        )
    with place.open("rb") as file:
        start = file.read(9)
    if start.startswith(b"PK"):
        return _open_zip(path, place)
    if start.startswith(b"\x80") and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise UserError(
            f"{path} is a Python pickle (an old PyTorch file), which can run any program and is not read here; in PyTorch "
            f"load it with weights_only=True and save it with safetensors.torch.save_file"
        )
    if start[8:9] == b"{":
        # Under the name it has in a folder of its library's, the file stands for that folder.
        folder = place.parent if place.name == "model.safetensors" else None
        return _open_torch(path, read_safetensors(path), folder, num_heads, grid)
    raise UserError(
        f"{path} begins with {start[:8]!r}, which is neither npz (PK) nor safetensors; if it was downloaded, it may be an "
        f"error page: look into it and download it again"
    )


def _open_run(path: str, folder: epath.Path, weights: Weights) -> Source:
    try:
        tensors, meta = read_params(folder, average=weights == "average")
        settings = {
            k: tuple(x) if isinstance(x, list) else x for k, x in meta.get("config", {}).get("model", {}).items()
        }
        grid = tuple(meta["grid"])
    except UserError:
        raise
    except Exception as error:  # whatever Orbax makes of a damaged folder: the remedy is the same
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"{folder} cannot be read as a checkpoint of ours ({reason}); copy it again") from error
    native, aside = native_names(tensors)
    return Source(path, "run", native, settings or architecture.infer_settings(native), grid, aside=aside, meta=meta)


def _open_zip(path: str, place: epath.Path) -> Source:
    with place.open("rb") as file:
        try:
            members = zipfile.ZipFile(file).namelist()
        except Exception:  # whatever a damaged zip raises: read_npz says what is wrong
            members = []
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
    ours = f'"{claims.OWN_SECTION}"'.encode()
    if beside == place or not beside.exists() or ours not in beside.read_bytes():
        return {}
    return claims.own_section(read_json(beside))


def _open_folder(path: str, place: epath.Path, num_heads: int, grid: tuple[int, int] | None) -> Source:
    if not any((place / name).exists() for name in ("model.safetensors", INDEX)):
        there = ", ".join(sorted(p.name for p in place.iterdir())[:8]) or "nothing"
        pickled = "; pytorch_model.bin is a pickle, which is not read here" if "pytorch_model" in there else ""
        raise UserError(
            f"{path} holds {there}{pickled}; expected checkpoints/ (a run of ours) or model.safetensors (Hugging Face, timm)"
        )
    return _open_torch(path, read_safetensors(path), place, num_heads, grid)


def _open_torch(
    path: str,
    stored: dict[str, np.ndarray],
    folder: epath.Path | None,
    num_heads: int,
    grid: tuple[int, int] | None,
) -> Source:
    config, processor = (
        read_json(folder / name) if folder and (folder / name).exists() else {}
        for name in ("config.json", "preprocessor_config.json")
    )
    hub = rename(stored, torch_names.hub_name)
    is_timm = "patch_embed.proj.weight" in stored
    if not is_timm and "embeddings.patch_embeddings.projection.weight" not in hub:
        some = ", ".join(sorted(stored)[:4]) or "none"
        raise UserError(
            f"{path} is neither transformers' ViT (vit.embeddings.patch_embeddings.projection.weight) nor timm's "
            f"(patch_embed.proj.weight): {len(stored)} tensors, {some}, ..."
        )
    found = claims.timm_settings(config) if is_timm else claims.hugging_face_settings(config)
    kernel = stored["patch_embed.proj.weight"] if is_timm else hub["embeddings.patch_embeddings.projection.weight"]
    width = kernel.shape[0] if kernel.ndim else 0
    told = num_heads or found.pop("num_heads", 0)
    heads = told or architecture.HEADS_OF_WIDTH.get(width, 0)
    if not heads or width % heads:
        raise UserError(
            f"{path} does not tell its attention heads, and {heads or 'no'} heads divide its width {width}; "
            f"give num_heads, or a folder whose config.json says so"
        )
    rules = torch_names.TIMM if is_timm else torch_names.HUGGING_FACE
    native, origin = torch_names.to_native(stored if is_timm else hub, rules, heads)
    if not is_timm:
        whole = {torch_names.hub_name(name): name for name in stored}
        origin = {ours: whole.get(theirs, theirs) for ours, theirs in origin.items()}
    found.pop("num_heads", None)
    aside = {}
    for name in ("embeddings.mask_token", "decoder.0.weight", "decoder.0.bias"):
        if native.pop(name, None) is not None:
            aside[origin.pop(name)] = "of the masked image model, not of the encoder"
    _add_absent_biases(native, origin)
    own = claims.own_section(config)
    inferred = architecture.infer_settings(native)
    if inferred["name"] != "vit":
        raise UserError(
            f"{path} names its tensors as PyTorch does, and holds those of a {inferred['name']} of ours beside them"
        )
    settings = inferred | found | own["model"]
    grid = grid or (tuple(own["grid"]) if own.get("grid") else claims.grid_of_config(config, inferred["patch_size"]))
    grid = _place_positions(path, native, settings, grid) if is_timm else grid
    grid = grid or architecture.infer_grid(native, settings)
    meta = {"class_names": claims.class_names(config)} | {k: v for k, v in own.items() if k not in ("model", "grid")}
    meta |= claims.pixel_statistics(config, processor)
    assumed = [] if told else [f"{heads} attention heads, as models of width {width} have"]
    if is_timm and "pool" not in found and "pool" not in own["model"] and settings["class_token"] == "yes":
        assumed.append(f"pool={settings['pool']}, which no tensor tells")
    return Source(path, "timm" if is_timm else "hf", native, settings, grid, origin, aside, meta, assumed)


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
    positions, table = native.get(POSITIONS), native.get("Transformer/registers")
    if positions is None:
        return grid
    has_class = architecture.has_class_token(settings)
    registers = 0 if table is None else table.shape[1]
    if table is not None and (positions.shape[0], positions.shape[2]) != (table.shape[0], table.shape[2]):
        return grid  # refused where they are fitted
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
    elif table is not None:
        first = int(has_class)
        own = positions[:, first : first + registers]
        native["Transformer/registers"] = table + own if own.any() else table  # a sum with 0 would turn -0 into 0
        native[POSITIONS] = np.concatenate([positions[:, :first], positions[:, first + registers :]], axis=1)
    return grid


def describe_settings(settings: Mapping[str, Any]) -> str:
    """A model section on one line."""
    return json.dumps(dict(settings), default=str)
