"""Opens a checkpoint from anywhere, by its content and not by its name.

Formats: npz of the original releases (ViT, hybrids, Mixer, BiT) and of big_vision; safetensors of Hugging Face
transformers and of timm, as a file or as a folder with its config; runs of vit_jax; names of released models.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Mapping
from typing import Any

from etils import epath

from vit_jax.convert import architecture, claims, released
from vit_jax.convert.absent import explain_absent
from vit_jax.convert.checkpoint import Checkpoint, Weights
from vit_jax.convert.fetch import fetched
from vit_jax.convert.names import native_names
from vit_jax.convert.npz import read_npz
from vit_jax.convert.safetensor import INDEX, read_safetensors
from vit_jax.convert.torch_source import open_torch
from vit_jax.files import MAX_JSON_BYTES, UnreadableFile, open_regular, read_json, read_regular
from vit_jax.models.base import DEVICE, ImageModel, keys_of_role
from vit_jax.models.build import MODELS
from vit_jax.remote import is_url
from vit_jax.train.checkpoint import read_params
from vit_jax.train.folders import FOLDER, run_folder
from vit_jax.types import UserError, printable


def open_checkpoint(
    path: str, *, num_heads: int = 0, weights: Weights = "raw", grid: tuple[int, int] | None = None
) -> Checkpoint:
    """Reads a checkpoint of any format.

    Args:
      path: file, folder, URL of either (`gs://bucket/run@best`), or the name of a released model such as `augreg:B/16`.
      num_heads: attention heads, for a PyTorch file without a config, because its shapes do not show them.
      weights: for a vit_jax run, the raw parameters or their Polyak average.
      grid: (gh, gw) that the positions were trained at, for a file that does not record it.

    Raises:
      UserError: the path is missing, its format is unknown, or it is damaged or not a vit_jax model.
    """
    if released.is_name(path):
        release = released.find(path)
        source = open_checkpoint(str(released.fetch(release)), num_heads=num_heads, weights=weights, grid=grid)
        return dataclasses.replace(source, path=path)
    if is_url(path):
        with fetched(path, item="params" if weights == "raw" else weights) as copy:
            return dataclasses.replace(
                open_checkpoint(copy, num_heads=num_heads, weights=weights, grid=grid), path=path
            )
    try:
        source = _open(path, num_heads, weights, grid)
        if source.format != "run":
            claims.check_settings(source.settings)
        claims.check_sizes(source.settings, source.grid)
    except UserError as error:
        if printable(path) in str(error):
            raise
        raise UserError(f"{path}: {error}") from error
    except UnreadableFile as error:
        raise UserError(f"{error}; give the checkpoint itself") from error
    except (OSError, ImportError, KeyError, RuntimeError) as error:  # RuntimeError: a home folder that is missing
        if isinstance(error, KeyError):
            raise
        raise UserError(f"{path} cannot be reached ({type(error).__name__}: {error}); give another path") from error
    return source if grid is None else dataclasses.replace(source, grid=grid)


def _open(path: str, num_heads: int, weights: Weights, grid: tuple[int, int] | None) -> Checkpoint:
    place = epath.Path(path).expanduser()
    if folder := run_folder(path):
        return _open_run(path, folder, weights)
    if weights == "average":
        raise UserError(f"{path} is no vit_jax run, so it holds no averaged weights; leave weights=average out")
    if place.is_dir():
        return _open_folder(path, place, num_heads, grid)
    if not place.exists():
        raise UserError(explain_absent(path))
    with open_regular(place) as file:
        start = file.read(9)
    if start.startswith(b"PK"):
        return _open_zip(path, place, num_heads, grid)
    if start.startswith(b"\x80") and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise UserError(
            f"{path} is a Python pickle (an old PyTorch file), which can run any program and is not read here; in PyTorch "
            f"load it with weights_only=True and save it with safetensors.torch.save_file"
        )
    if start[8:9] == b"{":
        # Under the name that it has in its library's folder, the file stands for that folder.
        folder = place.parent if place.name == "model.safetensors" else None
        return open_torch(path, read_safetensors(path), folder, num_heads, grid)
    raise UserError(
        f"{path} begins with {start[:8]!r}, which is neither npz (PK) nor safetensors; if it was downloaded, it may be an "
        f"error page: look into it and download it again"
    )


def _open_run(path: str, folder: epath.Path, weights: Weights) -> Checkpoint:
    try:
        tensors, meta = read_params(folder, average=weights == "average")
        section = meta.get("config", {}).get("model", {})
        skip = keys_of_role(MODELS.get(section.get("name"), ImageModel), DEVICE)
        settings = {k: tuple(x) if isinstance(x, list) else x for k, x in section.items() if k not in skip}
        grid = tuple(meta["grid"])
    except UserError:
        raise
    except Exception as error:  # a damaged folder makes Orbax raise many types; the remedy is the same
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"{folder} cannot be read as a vit_jax checkpoint ({reason}); copy it again") from error
    native, aside = native_names(tensors)
    return Checkpoint(
        path, "run", native, settings or architecture.infer_settings(native), grid, aside=aside, meta=meta
    )


def _open_zip(path: str, place: epath.Path, num_heads: int, grid: tuple[int, int] | None) -> Checkpoint:
    with open_regular(place) as file:
        try:
            members = zipfile.ZipFile(file).namelist()
        except Exception:  # a damaged zip raises many types; read_npz explains the damage
            members = []
    if any(name.endswith(("data.pkl", ".pkl")) for name in members):
        raise UserError(
            f"{path} is a PyTorch file (a pickle in a zip), which can run any program and is not read here; in PyTorch load "
            f"it with weights_only=True and save it with safetensors.torch.save_file"
        )
    stored = read_npz(path)
    if "patch_embed.proj.weight" in stored:  # MAE's own names, and timm's
        return open_torch(path, stored, None, num_heads, grid)
    native, aside = native_names(stored)
    own = _read_sidecar(place)
    inferred = architecture.infer_settings(native)
    claims.check_against(inferred, own.get("model", {}))
    settings = {"gelu": "tanh", "norm_eps": 1e-6} | inferred | own.get("model", {})
    if settings["name"] == "resnet":
        del settings["gelu"], settings["norm_eps"]
    elif settings["name"] == "mixer":
        del settings["norm_eps"]
    grid = tuple(own["grid"]) if own.get("grid") else architecture.infer_grid(native, settings)
    meta = {key: value for key, value in own.items() if key not in ("model", "grid")}
    undecided = claims.undecided(settings, own.get("model", {}))
    return Checkpoint(path, "npz", native, settings, grid, aside=aside, meta=meta, undecided=undecided)


def _read_sidecar(place: epath.Path) -> dict[str, Any]:
    """Reads the JSON that `convert.save` wrote beside an npz file, which has no room for a config."""
    beside = place.with_suffix(".json")
    ours = f'"{claims.OWN_SECTION}"'.encode()
    if beside == place or not beside.exists() or ours not in read_regular(beside, limit=MAX_JSON_BYTES):
        return {}
    return claims.own_section(read_json(beside))


def _open_folder(path: str, place: epath.Path, num_heads: int, grid: tuple[int, int] | None) -> Checkpoint:
    if not any((place / name).exists() for name in ("model.safetensors", INDEX)):
        there = ", ".join(sorted(p.name for p in place.iterdir())[:8]) or "nothing"
        if place.name == FOLDER and run_folder(str(place.parent)):
            raise UserError(f"{path} is the folder of a run's checkpoints; give the run's own, {place.parent}")
        pickled = "; pytorch_model.bin is a pickle, which is not read here" if "pytorch_model" in there else ""
        raise UserError(
            f"{path} holds {there}{pickled}; expected checkpoints/ (a vit_jax run) or model.safetensors (Hugging Face, timm)"
        )
    return open_torch(path, read_safetensors(path), place, num_heads, grid)


def without_positions(path: str) -> str:
    """The choice that the caller has for a checkpoint without position embeddings, for a message that explains how to choose."""
    return (
        f"{path} has no position embeddings: its model was trained without any (none) or with fixed ones (sincos_2d), and no "
        "tensor tells which"
    )


def describe_settings(settings: Mapping[str, Any]) -> str:
    """Formats a model section on one line."""
    return json.dumps(dict(settings), default=str)
