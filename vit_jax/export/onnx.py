"""ONNX, from the program that JAX traces: parameters are computed through, the rest is translated operation by operation.

It is our own translation, of the three dozen operations that models consist of, because none that we tried holds up: jax2onnx
0.17.1 translates one of our 14 architectures (the Mixer) and needs an older Orbax than ours, and the way through TensorFlow
(tf2onnx) needs TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vit_jax.export.onnx_graph import Graph, Tensor, Value
from vit_jax.export.onnx_ops import OPERATIONS, UnsupportedError, with_axes
from vit_jax.export.program import Program, abstract_images
from vit_jax.types import UserError

INPUT = "images"
LIMIT = 2**31 - 2**20  # bytes of weights in one file


def make_model(program: Program) -> Any:
    """The onnx.ModelProto: input `images`, outputs named as the program's.

    Raises:
      UserError: the package onnx is missing, or the program has an operation without a translation.
    """
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise UserError("--format=onnx needs the package onnx; pip install 'vit_jax[onnx]'") from error
    if program.dtype != "float32":
        raise UserError(
            f"{program.source} computes in {program.dtype}, which runtimes of ONNX lack on most devices; export it with "
            "--set dtype=float32, or as stablehlo"
        )
    images = abstract_images(program)
    traced = jax.jit(program.run).trace(images)
    graph = Graph(images.shape, images.dtype, INPUT)
    try:
        outs = translate(graph, traced.jaxpr.jaxpr, traced.jaxpr.consts, [graph.input])
    except UnsupportedError as error:
        raise UserError(
            f"{program.source} has an operation that ONNX export does not know: {error}; export it as stablehlo"
        ) from error
    return graph.finish({name: x for name, x in zip(program.names, outs, strict=True) if isinstance(x, Tensor)})


def translate(graph: Graph, jaxpr: Any, constants: Any, inputs: list[Value]) -> list[Value]:
    """Adds the nodes of a program; returns its outputs."""
    values: dict[Any, Value] = dict(zip(jaxpr.constvars, map(np.asarray, constants), strict=True))
    values |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(variable: Any) -> Value:
        return np.asarray(variable.val) if hasattr(variable, "val") else values[variable]

    for eqn in jaxpr.eqns:
        values |= zip(eqn.outvars, _outputs(graph, eqn, [read(x) for x in eqn.invars]), strict=True)
    return [read(x) for x in jaxpr.outvars]


def _outputs(graph: Graph, eqn: Any, inputs: list[Value]) -> list[Value]:
    name = eqn.primitive.name
    inner = [x for x in eqn.params.values() if hasattr(x, "jaxpr") or hasattr(x, "eqns")]
    if inner and name not in ("scan", "while", "cond"):  # a call: its program takes the place of the equation
        closed = inner[0]
        return translate(graph, getattr(closed, "jaxpr", closed), getattr(closed, "consts", ()), inputs)
    if all(isinstance(x, np.ndarray) for x in inputs) and not _is_open(eqn):
        made = eqn.primitive.bind(*inputs, **eqn.params)
        return [np.asarray(x) for x in (made if eqn.primitive.multiple_results else [made])]
    if name not in OPERATIONS:
        raise UnsupportedError(name)
    out, aval = OPERATIONS[name](graph, eqn, *inputs), eqn.outvars[0].aval
    narrow = with_axes(graph, eqn, *inputs) if name == "broadcast_in_dim" else None
    if narrow is not None and narrow.shape == tuple(aval.shape):
        narrow = None
    return [Tensor(out, tuple(aval.shape), np.dtype(aval.dtype), narrow)]


def _is_open(eqn: Any) -> bool:
    """Whether the shape of an output depends on the batch."""
    return any(jax.export.is_symbolic_dim(d) for x in eqn.outvars for d in x.aval.shape)


def write(model: Any, file: Path) -> None:
    """Writes a model; weights above the 2 GiB that a file of protobuf holds go into `FILE.data` beside it."""
    import onnx

    large = sum(len(x.raw_data) for x in model.graph.initializer) > LIMIT
    onnx.save(model, str(file), save_as_external_data=large, location=f"{file.name}.data")


def open_file(file: Path) -> Callable[[np.ndarray], Mapping[str, Any]] | None:
    """The function in a file, from images to named outputs; None where onnxruntime is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {INPUT: images}), strict=True))
