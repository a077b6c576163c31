"""Fits parameters from elsewhere to a model: head policy, other resolutions, other channels, and the fate of every tensor.

Nothing is loaded in part by accident: a tensor that is missing, unknown or of another shape is an error, and the error lists all
such tensors (arXiv 2010.11929, section 3.2, says which parts a change of task and resolution may replace).
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from vit_jax.convert import architecture
from vit_jax.convert.checkpoint import Checkpoint
from vit_jax.models.bias import resample_bias
from vit_jax.models.positions import Method, resample_axis, resample_positions, resample_relative
from vit_jax.types import UserError, counted, itemize, printable

# Head policy "zeros" replaces these as a whole: the linear head and the representation layer before it.
HEAD = ("head/", "pre_logits/")
# The first layer of each family: the only kernels that see the image's channels. A hybrid's is its root convolution.
FIRST_KERNELS = ("conv_root/kernel", "embedding/kernel", "stem/kernel")

# The last parts of the names of positions, which are resized.
POSITIONS = ("pos_embedding", "pos_embedding_x", "pos_embedding_y", "rel_embedding", "rel_bias")

HeadPolicy = Literal["zeros", "keep"]


class Fate(NamedTuple):
    """The fate of one tensor of the checkpoint or of the model.

    Args:
      name: the vit_jax name; the file's name for action `aside`; `model` for an assumption.
      action: `loaded`, `resized`, `channels` (a first layer, for another number of channels), `folded` (a layer that absorbed
        the source's pixel statistics), `reordered` (a head's outputs, by class name), `fresh` (kept at the model's own initial
        value), `dropped` (from the file, by the head policy), `aside` (not part of an image model) or `assumed`.
      detail: shapes, and the name in the file.
    """

    name: str
    action: str
    detail: str


ACTIONS = ("loaded", "resized", "channels", "folded", "reordered", "fresh", "dropped", "aside", "assumed")


def fit_params(
    source: Checkpoint,
    fresh: Mapping[str, np.ndarray],
    *,
    head: HeadPolicy,
    new_grid: tuple[int, int],
    resize: Method = "bilinear_corners",
) -> tuple[dict[str, np.ndarray], list[Fate]]:
    """Fits a checkpoint's tensors to a model's parameters.

    Args:
      source: the checkpoint.
      fresh: {vit_jax name: array} of the model as initialised, layers apart; gives names, shapes, dtypes, and the new head.
        With `head="keep"` no value of it is read, so shapes with dtypes are enough.
      head: `zeros` drops the checkpoint's head and representation layer and starts new ones (fine-tuning); `keep` loads
        them, and requires that they fit.
      new_grid: (gh, gw) of the model's patches.
      resize: how positions are resized; see `models.positions.interpolation_matrix`.

    Returns:
      (parameters under the names of `fresh`, one Fate for each tensor of checkpoint and model).

    Raises:
      UserError: lists all tensors that are missing, unknown or of other shapes, after the reason if it is clear.
    """
    params: dict[str, np.ndarray] = {}
    report = [Fate("model", "assumed", what) for what in source.assumed]
    report += [Fate(name, "aside", why) for name, why in source.aside.items()]
    missing, wrong, unknown = [], [], []
    not_finite: list[str] = []
    # As MAE fine-tunes: a new norm after pooling is part of the new head, and takes the place of the norm before it.
    moved = head == "zeros" and "fc_norm/scale" in fresh and "fc_norm/scale" not in source.tensors
    new = HEAD + ("fc_norm/", "Transformer/encoder_norm/") * moved
    for name, start in fresh.items():
        if head == "zeros" and name.startswith(new):
            params[name] = np.asarray(start)
            report.append(Fate(name, "fresh", f"{_shape(start)} new head (init.head=zeros)"))
        elif name not in source.tensors and name.startswith(source.without):
            params[name] = np.asarray(start)
            report.append(Fate(name, "fresh", f"{_shape(start)} the checkpoint's model has none"))
        elif name not in source.tensors:
            missing.append(f"missing in the checkpoint: {name} {_shape(start)}")
        else:
            try:
                params[name], fate = _fit_tensor(source, name, start, new_grid, resize)
                report.append(fate)
            except UserError as error:
                wrong.append(str(error))
            else:
                not_finite += _count_non_finite(source, name)
    for name, value in source.tensors.items():
        if name in fresh and not (head == "zeros" and name.startswith(new)):
            continue
        if head == "zeros" and name.startswith(new):
            report.append(Fate(name, "dropped", f"{_shape(value)} old head (init.head=zeros)"))
        else:
            unknown.append(f"not in the model: {source.origin.get(name, name)} {_shape(value)}")
    if count := len(missing) + len(wrong) + len(unknown):
        lists = [itemize(names) for names in (missing, wrong, unknown) if names]
        raise UserError(
            f"{source.path} does not fit the model ({counted(count, 'tensor')}, nothing was loaded); change the model section or "
            "init.head:\n" + "\n".join(_reasons(source.tensors, fresh) + lists)
        )
    if not_finite:
        raise UserError(
            f"{source.path} holds values that are NaN or infinite, and nothing was loaded: it is damaged, or of a run that "
            f"diverged; take an earlier checkpoint, or download it again (convert.open.open_checkpoint reads it as it is):\n"
            f"{itemize(not_finite)}"
        )
    return params, report


def _fit_tensor(
    source: Checkpoint, name: str, start: np.ndarray, new_grid: tuple[int, int], resize: Method
) -> tuple[np.ndarray, Fate]:
    """Fits one tensor; returns it and its fate.

    Raises:
      UserError: the tensor does not fit.
    """
    value = np.asarray(source.tensors[name])
    first = next((n for n in FIRST_KERNELS if n in source.tensors), None)
    if not np.issubdtype(value.dtype, np.floating) and value.dtype.name != "bfloat16":
        raise UserError(f"not floating point: {name} is {value.dtype}")
    if value.dtype.itemsize > start.dtype.itemsize and np.abs(value).max() > np.finfo(start.dtype).max:
        raise UserError(f"too large for {start.dtype}: {name} holds {np.abs(value).max():.3g}")
    value = value.astype(start.dtype)
    was = f", from {source.origin[name]}" if source.origin.get(name, name) != name else ""
    if resized := _resize(source, name, value, start, new_grid, resize):
        value, sizes = resized
        fate = Fate(name, "resized", f"{sizes}, {resize}{was}")
    elif name == first and value.ndim == 4 and value.shape[2] != start.shape[2]:
        fate = Fate(name, "channels", f"{value.shape[2]} -> {start.shape[2]} channels{was}")
        value = adapt_channels(value, start.shape[2])
    elif source.reordered and name in ("head/kernel", "head/bias"):
        fate = Fate(name, "reordered", source.reordered)
    else:
        fate = Fate(name, "loaded", _shape(value) + was)
    if value.shape != start.shape:
        raise UserError(f"shape: {name} is {_shape(value)} in the checkpoint, {_shape(start)} in the model")
    return value, fate


def _count_non_finite(source: Checkpoint, name: str) -> list[str]:
    """One line that counts the NaN and infinite values of a tensor; empty if there are none."""
    finite = np.isfinite(np.asarray(source.tensors[name]))
    wrong = finite.size - int(np.count_nonzero(finite))
    return [f"{source.origin.get(name, name)}: {wrong:,} of {finite.size:,} values"] if wrong else []


def _resize(
    source: Checkpoint, name: str, value: np.ndarray, start: np.ndarray, new_grid: tuple[int, int], method: Method
) -> tuple[np.ndarray, str] | None:
    """Returns positions resized to the model's grid and a note of both grids; None if nothing needs resizing."""
    leaf = name.rpartition("/")[2]
    if leaf not in POSITIONS or value.ndim != start.ndim:
        return None
    if value.shape[-1] != start.shape[-1]:
        return None  # another width, which is reported as a wrong shape
    old = source.grid
    if old is None:
        count = architecture.count_positions(source.tensors, source.settings)
        raise UserError(
            f"{name} has {count} positions, not a square grid, and {source.path} does not say which; give grid=(gh, gw)"
        )
    if tuple(old) == tuple(new_grid):
        return None
    has_class_token = "cls" in source.tensors
    if leaf == "pos_embedding":
        value = resample_positions(value, old, new_grid, has_class_token=has_class_token, method=method)
    elif leaf == "rel_embedding":
        value = resample_relative(value, old, new_grid, method)
    elif leaf == "rel_bias":
        value = resample_bias(value, old, new_grid, method)
    else:
        value = resample_axis(value, new_grid[leaf == "pos_embedding_x"], method)
    return value, f"{old[0]}x{old[1]} -> {new_grid[0]}x{new_grid[1]}"


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Adapts a first layer's kernel (h, w, in, out) to images with another number of channels.

    More channels: the old ones repeat in turn, and each one's weight is divided among its copies, so an image that repeats its
    channels gives the old output. Fewer: the first ones stay and the others are added to them in equal parts, so one channel gets
    the sum. Both ways, an image whose channels are all equal gives the old output. (A standardised kernel, in a hybrid or ResNet,
    sets its own scale.)
    """
    old = kernel.shape[2]
    if channels < old:
        return kernel[:, :, :channels] + kernel[:, :, channels:].sum(axis=2, keepdims=True) / np.float32(channels)
    turn = np.arange(channels) % old
    return kernel[:, :, turn] / np.bincount(turn)[turn].astype(kernel.dtype)[:, None]


def fold_pixels(source: Checkpoint) -> tuple[Checkpoint, list[Fate]]:
    """Converts a source whose images use other statistics than [-1, 1], which vit_jax's forward pass feeds, to [-1, 1].

    For p in [0, 1] and x = 2 p - 1, (p - mean) / std equals (0.5 x + 0.5 - mean) / std: one factor and one constant per channel,
    which the first layer absorbs. Sources with mean and std 0.5, or without statistics, are returned unchanged.

    Raises:
      UserError: the number of statistics is not the number of channels.
    """
    mean, std = source.meta.get("pixel_mean"), source.meta.get("pixel_std")
    if mean is None or std is None:
        return source, []
    kernel, bias = (np.asarray(source.tensors[f"embedding/{leaf}"], np.float64) for leaf in ("kernel", "bias"))
    channels = kernel.shape[2]
    if len(mean) not in (1, channels) or len(std) not in (1, channels):
        raise UserError(f"{source.path} normalises by {mean} and {std}; expected one or {channels} of each")
    factor = 0.5 / np.broadcast_to(np.asarray(std, np.float64), channels)
    constant = (0.5 - np.asarray(mean, np.float64)) / np.asarray(std, np.float64)
    folded = {
        "embedding/bias": bias + np.einsum("hwcd,c->d", kernel, np.broadcast_to(constant, channels)),
        "embedding/kernel": kernel * factor[:, None],
    }
    if source.settings.get("decoder") == "pixels" and {"decoder/kernel", "decoder/bias"} <= set(source.tensors):
        # Predicted pixels are in the source's range too: y becomes 2 (std y + mean) - 1. A patch's vector is channel by channel.
        size = np.shape(source.tensors["decoder/bias"])[0] // channels
        scale, shift = (
            np.repeat(np.broadcast_to(x, channels), size)
            for x in (2 * np.asarray(std, np.float64), 2 * np.asarray(mean, np.float64) - 1)
        )
        folded["decoder/kernel"] = np.asarray(source.tensors["decoder/kernel"], np.float64) * scale
        folded["decoder/bias"] = np.asarray(source.tensors["decoder/bias"], np.float64) * scale + shift
    folded = {name: x.astype(np.float32) for name, x in folded.items()}
    meta = {key: x for key, x in source.meta.items() if key not in ("pixel_mean", "pixel_std")}
    note = f"the source's images have mean {mean} and std {std}; ours are in [-1, 1]"
    fates = [Fate(name, "folded", note) for name in folded]
    return dataclasses.replace(source, tensors=source.tensors | folded, meta=meta), fates


def _reasons(source: Mapping[str, np.ndarray], fresh: Mapping[str, np.ndarray]) -> list[str]:
    """Reasons that explain many mismatches at once."""
    reasons = []

    def depth(names: Mapping[str, np.ndarray]) -> int:
        matches = (re.match(r"(?:Transformer/encoderblock|MixerBlock)_(\d+)/", name) for name in names)
        return len({match[1] for match in matches if match})

    if depth(source) != depth(fresh):
        reasons.append(f"the checkpoint has {depth(source)} layers, the model {depth(fresh)} (model.depth)")
    if "head/kernel" in fresh and "head/kernel" not in source:
        reasons.append("the checkpoint has no head (--config.init.head=zeros starts a new one)")
    if ("cls" in source) != ("cls" in fresh):
        has, lacks = ("checkpoint", "model") if "cls" in source else ("model", "checkpoint")
        reasons.append(f"the {has} has a class token, the {lacks} has none (model.pool, model.class_token)")
    if ("fc_norm/scale" in source) != ("fc_norm/scale" in fresh):
        has = "checkpoint" if "fc_norm/scale" in source else "model"
        reasons.append(f"the {has} normalises after pooling, the other before it (model.norm_after_pool)")
    mixing = "MixerBlock_0/token_mixing/Dense_0/kernel"
    if mixing in source and mixing in fresh and np.shape(source[mixing]) != np.shape(fresh[mixing]):
        side = round(np.shape(source[mixing])[0] ** 0.5)
        reasons.append(f"a Mixer works at one resolution only, that of {side}x{side} patches (data.resolution)")
    return reasons


def format_report(report: list[Fate], *, every_leaf: bool = False) -> str:
    """The report as text: a count per action, then a line for each tensor that was not simply loaded (or for all)."""
    counts = Counter(fate.action for fate in report)
    lines = [", ".join(f"{counts[action]} {action}" for action in ACTIONS if counts[action])]
    for fate in report:
        if every_leaf or fate.action != "loaded":
            lines.append(printable(f"  {fate.action:<8} {fate.name} {fate.detail}"))
    return "\n".join(lines)


def _shape(array: np.ndarray) -> str:
    return "x".join(map(str, np.shape(array))) or "scalar"
