"""Checks a model's input images against its parameters while the call is traced.

The compiled program contains none of these checks. A mistake gives advice to the user instead of a shape error inside flax.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from vit_jax.types import UserError, counted


def check_images(images: Any, variables: Mapping[str, Any], first: str) -> None:
    """Refuses images that the model does not accept.

    Args:
      images: an array; the model accepts float (b, h, w, channels).
      variables: the module's variables; empty during initialisation.
      first: name of the layer that reads the channels.

    Raises:
      UserError: integers, a wrong number of axes or channels, channels first; one message lists every mistake.
    """
    shape = np.shape(images)
    dtype = images.dtype if hasattr(images, "dtype") else np.asarray(images).dtype  # a tracer cannot be made one
    kernel = variables.get("params", {}).get(first, {}).get("kernel")
    wrong = []
    if not jnp.issubdtype(dtype, jnp.floating):
        wrong.append(f"images are {dtype}; expected floats in [-1, 1]: images.astype('float32') / 127.5 - 1")
    if len(shape) == 3:
        wrong.append(f"images have shape {shape}; expected (b, h, w, channels): images[None] is a batch of one")
    elif len(shape) != 4:
        wrong.append(f"images have shape {shape}; expected (b, h, w, channels)")
    if kernel is not None and len(shape) in (3, 4) and shape[-1] != kernel.shape[2]:
        channels = kernel.shape[2]
        if shape[-3] == channels:
            back = (0, 2, 3, 1)[: len(shape)] if len(shape) == 4 else (1, 2, 0)
            wrong.append(
                f"images of shape {shape} have their channels first; expected them last: images.transpose{back}"
            )
        else:
            wrong.append(
                f"images of shape {shape} have {counted(shape[-1], 'channel')}, and this model takes {channels}; "
                f"load_model(path, channels={shape[-1]}) makes one that takes {shape[-1]}"
            )
    if wrong:
        raise UserError("\n".join(wrong))


def check_per_patch(given: Mapping[str, Any], expected: tuple[Any, int]) -> None:
    """Refuses arguments with a value for each patch, such as a mask, of another shape than (b, n), in which b is a symbol where a
    batch of any size is traced; None is left out.

    Raises:
      UserError: names each of them, its shape and the shape expected.
    """
    wrong = [
        f"{name} has shape {np.shape(x)}; expected {expected}, a value for each patch of each image"
        for name, x in given.items()
        if x is not None and np.shape(x) != expected
    ]
    if wrong:
        raise UserError("\n".join(wrong))


def check_grid(
    grid: tuple[int, int], variables: Mapping[str, Any], *, has_class_token: bool, patch: tuple[int, int]
) -> None:
    """Refuses images whose grid differs from that of the model's positions, or of a Mixer's token mixing.

    Args:
      grid: (gh, gw) of the images' patches.
      variables: the module's variables; empty during initialisation.
      has_class_token: whether the positions have an entry for a class token.
      patch: (h, w) of a patch in pixels.

    Raises:
      UserError: the grids differ.
    """
    tensors = flatten_dict(dict(variables.get("params", {})), sep="/")
    gh, gw = grid
    for name, x in tensors.items():
        if name.endswith("pos_embedding_y") and (gh, gw) != (
            stored := (x.shape[-2], tensors[name[:-1] + "x"].shape[-2])
        ):
            raise _another_size(grid, stored, stored[0] * stored[1], patch)
    count = count_patches(tensors, has_class_token)
    if count and count != gh * gw:
        side = math.isqrt(count)
        raise _another_size(grid, (side, side) if side * side == count else None, count, patch)


def count_patches(tensors: Mapping[str, Any], has_class_token: bool) -> int:
    """Number of patches of learned 1-D or relative positions, or of a Mixer's token mixing; 0 if a model has none of them.

    Args:
      tensors: {name: array}, layers apart or stacked along a first axis.
      has_class_token: whether the positions have an entry for a class token.
    """
    for name, x in tensors.items():
        if name.endswith("/pos_embedding") and len(x.shape) >= 3:
            return x.shape[-2] - has_class_token
        if name == "MixerBlock_0/token_mixing/Dense_0/kernel":
            return x.shape[0]
        if name.endswith("rel_embedding") and len(x.shape) >= 3:
            return (x.shape[-3] + 1 - 3 * has_class_token) // 2
        if name.endswith("rel_bias") and len(x.shape) >= 2:
            side = math.isqrt(max(x.shape[-2] - 3 * has_class_token, 0)) + 1  # 2 g, of a square grid
            return (side // 2) ** 2 if (side - 1) ** 2 == x.shape[-2] - 3 * has_class_token else 0
    return 0


def _another_size(
    grid: tuple[int, int], stored: tuple[int, int] | None, count: int, patch: tuple[int, int]
) -> UserError:
    h, w = grid[0] * patch[0], grid[1] * patch[1]
    fitting = f"resize the images to {stored[0] * patch[0]}x{stored[1] * patch[1]}, or " if stored else ""
    return UserError(
        f"images of {h}x{w} pixels have {grid[0]}x{grid[1]} = {grid[0] * grid[1]} patches, and this model has positions for "
        f"{count}; {fitting}load it for this size: load_model(path, resolution=({h}, {w})) (a Mixer has only one)"
    )
