"""An ONNX graph that grows node by node. Sizes of the batch stay open; constants are numpy arrays until a node reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.export
import numpy as np

OPSET = 18  # of 2022: every runtime in use reads it
IR = 9


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A value that depends on the images.

    Args:
      name: in the graph.
      shape: its entries are numbers, or expressions in the size of the batch.
      dtype: numpy dtype.
      narrow: the same value before it was repeated along axes, which then have length 1; None if it was not.
    """

    name: str
    shape: tuple[Any, ...]
    dtype: np.dtype
    narrow: Tensor | np.ndarray | None = None


Value = Tensor | np.ndarray


class Graph:
    """Collects nodes and constants.

    Args:
      shape: of the input, its first entry the symbol of the batch.
      dtype: of the input.
      name: of the input.
    """

    def __init__(self, shape: tuple[Any, ...], dtype: Any, name: str):
        self.input = Tensor(name, shape, np.dtype(dtype))
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self._known: dict[tuple[Any, ...], str] = {}
        self._size = ""  # of the batch, int64 (1,)

    def constant(self, value: np.ndarray) -> str:
        """The name of a constant; equal small ones share it."""
        value = np.ascontiguousarray(value)
        key = value.dtype.str, value.shape, value.tobytes() if value.size <= 64 else id(value)
        if key not in self._known:
            self._known[key] = f"constant_{len(self.constants)}"
            self.constants[self._known[key]] = value
        return self._known[key]

    def name(self, value: Value) -> str:
        """The name of a value in the graph."""
        return value.name if isinstance(value, Tensor) else self.constant(value)

    def add(self, op: str, *inputs: Value | str, **attributes: Any) -> str:
        """Adds a node with one output; returns the output's name. Inputs are values or names."""
        from onnx import helper

        names = [x if isinstance(x, str) else self.name(x) for x in inputs]
        out = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [out], name=out, **attributes))
        return out

    def reshape(self, value: Value | str, shape: Sequence[Any]) -> str:
        """Reshapes to a shape of which at most one entry depends on the batch."""
        open_ends = [d for d in shape if jax.export.is_symbolic_dim(d)]
        assert len(open_ends) < 2, shape
        return self.add("Reshape", value, np.array([-1 if d in open_ends else d for d in shape], np.int64))

    def expand(self, value: Value | str, shape: Sequence[Any]) -> str:
        """Repeats axes of length 1 to a shape that may depend on the batch."""
        if not any(jax.export.is_symbolic_dim(d) for d in shape):
            return self.add("Expand", value, np.array(shape, np.int64))
        self._size = self._size or self.add("Shape", self.input, start=0, end=1)
        parts: list[Any] = []
        for d in shape:
            if not jax.export.is_symbolic_dim(d):
                parts.append(np.array([d], np.int64))
            elif d == self.input.shape[0]:
                parts.append(self._size)
            else:  # a multiple of the batch, as in axial attention
                parts.append(self.add("Mul", self._size, np.array([d // self.input.shape[0]], np.int64)))
        return self.add("Expand", value, self.add("Concat", *parts, axis=0))

    def finish(self, outputs: dict[str, Tensor]) -> Any:
        """The model with these outputs, without nodes and constants that none of them depends on."""
        from onnx import helper, numpy_helper

        nodes = [*self.nodes, *(helper.make_node("Identity", [x.name], [name]) for name, x in outputs.items())]
        needed, kept = set(outputs), []
        for node in reversed(nodes):
            if needed & set(node.output):
                kept.append(node)
                needed |= set(node.input)
        weights = [numpy_helper.from_array(x, name) for name, x in self.constants.items() if name in needed]
        ends = [_describe(x, name) for name, x in outputs.items()]
        graph = helper.make_graph(kept[::-1], "vit_jax", [_describe(self.input, self.input.name)], ends, weights)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="vit_jax"
        )


def _describe(value: Tensor, name: str) -> Any:
    from onnx import helper

    shape = [str(d) if jax.export.is_symbolic_dim(d) else int(d) for d in value.shape]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), shape)
