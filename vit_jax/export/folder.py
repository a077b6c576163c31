"""Writes an export: the file, the names of its classes, and a page that says how to run it. The file is run before it counts."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from vit_jax.cards.facts import of_loaded
from vit_jax.convert.load import load
from vit_jax.export import onnx, stablehlo
from vit_jax.export.page import describe
from vit_jax.export.program import Output, Program, make_program
from vit_jax.types import UserError

Format = Literal["stablehlo", "onnx"]
LABELS = "labels.json"
TOLERANCE = 1e-4  # relative to the largest output: rounding stays far below it, and a wrong operation above


class Export(NamedTuple):
    """What `export` wrote.

    Args:
      files: their paths.
      difference: the largest difference between an output of the file and of the model, on random images; None if nothing that
        runs the file is installed.
    """

    files: tuple[str, ...]
    difference: float | None


def export(
    model: str, to: str | os.PathLike[str], format: Format = "stablehlo", output: Output | None = None, **overrides: Any
) -> Export:
    """Writes a checkpoint of any format as one file that runs without vit_jax, into a new folder.

    Args:
      model: see `load_model`.
      to: the folder; must not exist.
      format: `stablehlo` for jax alone, on CPUs, CUDA GPUs and TPUs; `onnx` for every runtime of ONNX.
      output: see `make_program`.
      **overrides: see `load_model`; `resolution=(h, w)` for images of another size.

    Raises:
      UserError: the checkpoint is missing or cannot be exported so, or the folder exists or cannot be written.
    """
    if format not in get_args(Format):
        raise UserError(f"format is {format!r}; expected {' or '.join(get_args(Format))}")
    place = Path(to).expanduser()
    if place.exists():
        raise UserError(f"{to} exists; give a folder that does not")
    loaded = load(model, stored_pixels=True, **overrides)
    program = make_program(loaded, output)
    facts = of_loaded(loaded, place.name, "orbax", overrides.get("weights", "raw"))
    names = f"model.{format}", LABELS, "README.md"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        half = place.with_name(f".{place.name}.{os.getpid()}.partial")
        half.mkdir()
        try:
            write(program, format, half / names[0])
            difference = compare(program, format, half / names[0])
            (half / names[1]).write_text(json.dumps(program.classes, indent=0, ensure_ascii=False) + "\n", "utf-8")
            (half / names[2]).write_text(describe(program, format, names[0], facts), "utf-8")
            half.rename(place)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{to} cannot be written ({error.strerror or error}); give another folder") from error
    return Export(tuple(str(file) for file in sorted(place.iterdir())), difference)


def write(program: Program, format: Format, file: Path) -> None:
    """Writes the file. ONNX keeps weights above 2 GiB in a file beside it."""
    if format == "stablehlo":
        file.write_bytes(stablehlo.serialize(program))
        return
    onnx.write(onnx.make_model(program), file)


def compare(program: Program, format: Format, file: Path) -> float | None:
    """Runs the file on random images in batches of 1 and 3; see `Export.difference`.

    Raises:
      UserError: the file gives other numbers than the model.
    """
    import jax

    run = stablehlo.open_file(file) if format == "stablehlo" else onnx.open_file(file)
    if run is None:
        return None
    shape = (*program.transform.resolution, program.channels)
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    largest = 0.0
    # onnxruntime computes on the CPU; accelerators round the operands of products unless they are asked not to.
    precision = "highest" if format == "onnx" else None
    for batch in (images[:1], images):
        with jax.default_matmul_precision(precision):
            expected, found = jax.jit(program.run)(batch), run(batch)
        for name, value in expected.items():
            want = np.asarray(value, np.float64)
            wrong = float(np.max(np.abs(np.asarray(found[name], np.float64) - want), initial=0))
            largest = max(largest, wrong / max(1.0, float(np.abs(want).max(initial=0))))
    if not largest < TOLERANCE:
        raise UserError(
            f"the {format} file of {program.source} gives other numbers than the model (by {largest:.2g}); nothing was written. "
            "Please report this with the model's config; the other --format may do"
        )
    return largest
