"""StableHLO by `jax.export`: one file for CPUs, CUDA GPUs and TPUs, which jax alone runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from vit_jax.export.program import Program, abstract_images
from vit_jax.types import UserError

PLATFORMS = ("cpu", "cuda", "tpu")
LIMIT = 2**31 - 1  # bytes that jax.export's container, a flatbuffer, can hold


def serialize(program: Program) -> bytes:
    """The file's content.

    Raises:
      UserError: the model is too large for the format.
    """
    exported = jax.export.export(jax.jit(program.run), platforms=PLATFORMS)(abstract_images(program))
    if len(exported.mlir_module_serialized) > LIMIT:
        size = len(exported.mlir_module_serialized) / 2**30
        raise UserError(
            f"{program.source} makes a program of {size:.1f} GiB, and the files of jax.export hold less than 2 GiB; export it as "
            "ONNX, which keeps large weights in a file beside it"
        )
    return bytes(exported.serialize())


def open_file(file: Path) -> Callable[[np.ndarray], Mapping[str, Any]]:
    """The function in a file, from images to named outputs."""
    call: Callable[[np.ndarray], Mapping[str, Any]] = jax.export.deserialize(bytearray(file.read_bytes())).call
    return call
