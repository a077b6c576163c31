"""Opens the tensors of PyTorch's two ViT libraries, Hugging Face transformers and timm, with the config beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from vit_jax.convert import architecture, claims, torch_names
from vit_jax.convert.checkpoint import Checkpoint
from vit_jax.convert.encoder import SHARED
from vit_jax.convert.names import POSITIONS, rename, with_class_position
from vit_jax.files import read_json
from vit_jax.types import UserError, shown


def open_torch(
    path: str,
    stored: dict[str, np.ndarray],
    folder: epath.Path | None,
    num_heads: int,
    grid: tuple[int, int] | None,
) -> Checkpoint:
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
    claimed = claims.timm_settings(config) if is_timm else claims.hugging_face_settings(config)
    kernel = stored["patch_embed.proj.weight"] if is_timm else hub["embeddings.patch_embeddings.projection.weight"]
    width = kernel.shape[0] if kernel.ndim else 0
    given_heads = claimed.pop("num_heads", 0) or num_heads
    heads = given_heads or architecture.HEADS_OF_WIDTH.get(width, 0)
    if not heads or width % heads:
        wrong = f", and {heads} do not divide its width {width}" if heads else ""
        raise UserError(
            f"{path} does not say how many attention heads it has{wrong}; "
            "give num_heads (--config.model.num_heads, --set num_heads=), or the folder with its config.json"
        )
    native, origin = _rename(stored, None if is_timm else hub, heads, config)
    aside = _set_aside(native, origin)
    _add_absent_biases(native, origin)
    own = claims.own_section(config)
    inferred = architecture.infer_settings(native)
    if inferred["name"] not in SHARED:
        raise UserError(f"{path} names its tensors as PyTorch does, and also holds those of our {inferred['name']}")
    claims.check_against(inferred, own["model"])
    if inferred["name"] != "mae":
        claimed.pop("mask_ratio", None)
    settings = inferred | claimed | own["model"]
    grid = grid or (tuple(own["grid"]) if own.get("grid") else claims.grid_of_config(config, inferred["patch_size"]))
    grid = _place_positions(path, native, settings, grid) if is_timm else grid
    grid = grid or architecture.infer_grid(native, settings)
    meta = {"class_names": claims.class_names(config)} | {k: v for k, v in own.items() if k not in ("model", "grid")}
    meta |= claims.pixel_statistics(config, processor)
    assumed = [] if given_heads else [f"{heads} attention heads, as models of width {width} have"]
    if is_timm and "pool" not in claimed and "pool" not in own["model"] and settings["class_token"] == "yes":
        assumed.append(f"pool={settings['pool']}, which no tensor tells")
    undecided = claims.undecided(settings, own["model"])
    return Checkpoint(
        path, "timm" if is_timm else "hf", native, settings, grid, origin, aside, meta, assumed, undecided
    )


def _rename(
    stored: dict[str, np.ndarray], hub: dict[str, np.ndarray] | None, heads: int, config: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """A file's tensors under vit_jax names, and their names in the file; `hub` has them under transformers', None for timm."""
    # MAE's own files name their encoder as timm does.
    decoder = {name: x for name, x in stored.items() if torch_names.decoder_name(name)}
    encoder = {name: x for name, x in (stored if hub is None else hub).items() if name not in decoder}
    rules = torch_names.TIMM if hub is None else torch_names.HUGGING_FACE
    native, origin = torch_names.to_native(encoder, rules, heads)
    if hub is not None:
        whole = {torch_names.hub_name(name): name for name in stored}
        origin = {ours: whole.get(theirs, theirs) for ours, theirs in origin.items()}
    if decoder:
        decoded, names = _open_decoder(decoder, config, hub is None)
        native, origin = native | decoded, origin | names
    return native, origin


def _open_decoder(
    tensors: dict[str, np.ndarray], config: Mapping[str, Any], is_timm: bool
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of an MAE's decoder and their names in the file, {vit_jax name: name}.

    Raises:
      UserError: its number of attention heads makes no sense.
    """
    rules = torch_names.TIMM_DECODER if is_timm else torch_names.HUGGING_FACE_DECODER
    heads = config.get("decoder_num_attention_heads", 16)  # as all published decoders have
    plain = rename(tensors, torch_names.decoder_name)
    width = plain["mask_token"].shape[-1] if "mask_token" in plain and plain["mask_token"].ndim else 0
    if type(heads) is not int or heads < 1 or (width and width % heads):
        raise UserError(
            f"config.json says decoder_num_attention_heads {shown(heads)}, which does not divide the decoder's width {width}"
        )
    native, origin = torch_names.to_native(plain, rules, heads)
    whole = {torch_names.decoder_name(name): name for name in tensors}
    return native, {ours: whole.get(theirs, theirs) for ours, theirs in origin.items()}


def _set_aside(native: dict[str, np.ndarray], origin: dict[str, str]) -> dict[str, str]:
    """Removes a mask token or a pixel decoder that is of no use alone: {name in the file: why}.

    transformers allows a decoder whose stride is not the patch; it cannot be trained there either.
    """
    kernel, decoder = native.get("embedding/kernel"), native.get("decoder/kernel")
    known = "mask_token" in native and decoder is not None and kernel is not None and kernel.ndim == 4
    if known and decoder.shape[1] == math.prod(kernel.shape[:3]):  # type: ignore[union-attr]
        return {}
    names = [name for name in ("mask_token", "decoder/kernel", "decoder/bias") if native.pop(name, None) is not None]
    return {origin.pop(name): "of the masked image model, not of the encoder" for name in names}


def _add_absent_biases(native: dict[str, np.ndarray], origin: dict[str, str]) -> None:
    """Adds zero qkv biases to a model without biases, which leaves its outputs equal."""
    for name in [name for name in native if name.endswith(("/query/kernel", "/key/kernel", "/value/kernel"))]:
        bias = name.removesuffix("kernel") + "bias"
        if bias not in native and native[name].ndim == 3:
            native[bias] = np.zeros(native[name].shape[1:], native[name].dtype)
            origin[bias] = "nothing: zeros, as the source has no qkv bias"


def _place_positions(
    path: str, native: dict[str, np.ndarray], settings: Mapping[str, Any], grid: tuple[int, int] | None
) -> tuple[int, int] | None:
    """Converts timm's positions to vit_jax's, which cover the class token, if any, and the patches; returns the grid.

    timm gives an entry to every prefix token (class token, registers) or to none. The grid decides which case it is, or the
    square one of the two possible patch counts.
    """
    positions, table = native.get(POSITIONS), native.get("Transformer/registers")
    if positions is None:
        return grid
    has_class = architecture.has_class_token(settings)
    registers = 0 if table is None else table.shape[1]
    if table is not None and (positions.shape[0], positions.shape[2]) != (table.shape[0], table.shape[2]):
        return grid  # the fit refuses them
    entries, prefix = positions.shape[1], has_class + registers

    def square(n: int) -> tuple[int, int] | None:
        side = round(max(n, 0) ** 0.5)
        return (side, side) if side * side == n and n > 0 else None

    without, with_prefix = square(entries), square(entries - prefix)
    if grid is not None:
        patches = grid[0] * grid[1]
        if patches not in (entries, entries - prefix):
            return grid  # the fit refuses it, with both numbers
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
        native["Transformer/registers"] = table + own if own.any() else table  # adding 0 would turn -0 into 0
        native[POSITIONS] = np.concatenate([positions[:, :first], positions[:, first + registers :]], axis=1)
    return grid
