"""The operations of JAX that models consist of, each as nodes of ONNX.

A function takes the graph, the equation and the values of its inputs, and returns the name of the output. Everything that depends
on parameters alone has been computed before, so kernels and indices are arrays here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from vit_jax.export.onnx_graph import Graph, Tensor, Value

Operation = Callable[..., str]
ALONG_CHANNELS = (0, 3, 1, 2)  # from (b, h, w, channels) to ONNX's (b, channels, h, w)


class UnsupportedError(Exception):
    """An operation, or a form of it, that has no translation."""


def require(condition: Any, eqn: Any) -> None:
    """Raises UnsupportedError unless the form of an operation is one that is translated."""
    if not condition:
        raise UnsupportedError(f"{eqn.primitive.name} of this form")


def shape_of(eqn: Any) -> tuple[Any, ...]:
    """The shape of an equation's output."""
    return tuple(eqn.outvars[0].aval.shape)


def ints(values: Any) -> np.ndarray:
    """Indices or sizes as a constant."""
    return np.array(list(values), np.int64)


def elementwise(op: str, g: Graph, eqn: Any, *inputs: Value) -> str:
    """ONNX repeats axes of length 1 itself: a repeated operand is read as it was before, if another has the full shape."""
    full = any(isinstance(x, Tensor) and x.narrow is None and x.shape == shape_of(eqn) for x in inputs)
    return g.add(op, *(x.narrow if full and isinstance(x, Tensor) and x.narrow is not None else x for x in inputs))


def with_axes(g: Graph, eqn: Any, x: Value, *_: Any) -> Value:
    """The operand of `broadcast_in_dim` with all axes of the output, those to be repeated of length 1."""
    places = dict(zip(eqn.params["broadcast_dimensions"], x.shape, strict=True))
    shape = tuple(places.get(axis, 1) for axis in range(len(shape_of(eqn))))
    if isinstance(x, np.ndarray):
        return x.reshape(shape)
    return x if x.shape == shape else Tensor(g.reshape(x, shape), shape, x.dtype)


def broadcast_in_dim(g: Graph, eqn: Any, x: Value, *_: Any) -> str:
    """Repeats; see `with_axes`."""
    narrow = with_axes(g, eqn, x)
    return g.name(narrow) if narrow.shape == shape_of(eqn) else g.expand(narrow, shape_of(eqn))


def reduce(op: str, g: Graph, eqn: Any, x: Value) -> str:
    """A sum, a maximum or a minimum over axes."""
    return g.add(op, x, ints(eqn.params["axes"]), keepdims=0)


def cast(g: Graph, eqn: Any, x: Value) -> str:
    """To another type."""
    from onnx import helper

    return g.add("Cast", x, to=int(helper.np_dtype_to_tensor_dtype(np.dtype(eqn.outvars[0].aval.dtype))))


def power(g: Graph, eqn: Any, x: Value) -> str:
    """x^y for a whole y; products are what JAX computes, and faster than a power."""
    y = eqn.params["y"]
    if not 2 <= y <= 4:
        return g.add("Pow", x, np.array(y, x.dtype))
    square = g.add("Mul", x, x)
    return {2: lambda: square, 3: lambda: g.add("Mul", square, x), 4: lambda: g.add("Mul", square, square)}[y]()


def transpose(g: Graph, value: Value | str, order: Any) -> str:
    """Axes in another order."""
    order = [int(axis) for axis in order]
    if isinstance(value, np.ndarray):
        return g.constant(value.transpose(order))
    if order == list(range(len(order))):
        return g.name(value) if isinstance(value, Tensor) else value
    return g.add("Transpose", value, perm=order)


def dot_general(g: Graph, eqn: Any, left: Value, right: Value) -> str:
    """Products of matrices: operands as (batch, rows, sum) and (batch, sum, columns), each group of axes merged to one."""
    (sum_left, sum_right), (batch_left, batch_right) = eqn.params["dimension_numbers"]
    sides = []
    for x, over, batch, last in ((left, sum_left, batch_left, True), (right, sum_right, batch_right, False)):
        free = [axis for axis in range(len(x.shape)) if axis not in (*over, *batch)]
        order = [*batch, *free, *over] if last else [*batch, *over, *free]
        lead = [x.shape[axis] for axis in batch]
        merged = [_product(x.shape[axis] for axis in axes) for axes in (free, over)]
        if last and not batch and len(over) == 1 and free:  # MatMul takes any number of axes before the rows
            shape = [x.shape[axis] for axis in (*free, *over)]
        else:
            shape = [*lead, *(merged if last else merged[::-1])]
        value: Value | str = x.transpose(order) if isinstance(x, np.ndarray) else transpose(g, x, order)
        if shape != [x.shape[axis] for axis in order]:
            value = value.reshape(shape) if isinstance(value, np.ndarray) else g.reshape(value, shape)
        sides.append((value, shape))
    product = g.add("MatMul", sides[0][0], sides[1][0])
    made = [*sides[0][1][:-1], sides[1][1][-1]]
    return product if made == list(shape_of(eqn)) else g.reshape(product, shape_of(eqn))


def _product(sizes: Any) -> Any:
    return functools.reduce(lambda a, b: a * b, sizes, 1)


def convolution(g: Graph, eqn: Any, x: Value, kernel: Value) -> str:
    """Over any number of spatial axes."""
    p = eqn.params
    require(all(d == 1 for d in p["lhs_dilation"]) and p["batch_group_count"] == 1, eqn)
    image, weights, out = p["dimension_numbers"]
    made = g.add(
        "Conv",
        transpose(g, x, image),
        transpose(g, kernel, weights),
        strides=list(p["window_strides"]),
        dilations=list(p["rhs_dilation"]),
        pads=[int(pad[end]) for end in (0, 1) for pad in p["padding"]],
        group=p["feature_group_count"],
    )
    return transpose(g, made, np.argsort(out))


def max_pool(g: Graph, eqn: Any, x: Value) -> str:
    """Over the second and third of four axes."""
    p = eqn.params
    sizes, strides, padding = (list(p[key]) for key in ("window_dimensions", "window_strides", "padding"))
    require(len(sizes) == 4 and sizes[0] == sizes[3] == strides[0] == strides[3] == 1, eqn)
    require(not any((*padding[0], *padding[3])) and max(*p["base_dilation"], *p["window_dilation"]) == 1, eqn)
    pads = [int(pad[end]) for end in (0, 1) for pad in padding[1:3]]
    made = g.add("MaxPool", transpose(g, x, ALONG_CHANNELS), kernel_shape=sizes[1:3], strides=strides[1:3], pads=pads)
    return transpose(g, made, np.argsort(ALONG_CHANNELS))


def pad(g: Graph, eqn: Any, x: Value, value: Value) -> str:
    """With a constant around."""
    low, high, between = zip(*eqn.params["padding_config"], strict=True)
    require(not any(between) and min(*low, *high) >= 0, eqn)
    return g.add("Pad", x, ints((*low, *high)), value)


def cut(g: Graph, eqn: Any, x: Value) -> str:
    """A slice; axes that are whole are left out, for their length may be the batch's."""
    starts, stops = eqn.params["start_indices"], eqn.params["limit_indices"]
    steps = eqn.params["strides"] or (1,) * len(starts)
    axes = [i for i, (a, b, s) in enumerate(zip(starts, stops, steps, strict=True)) if (a, b, s) != (0, x.shape[i], 1)]
    return (
        g.add(
            "Slice",
            x,
            *(ints(values[axis] for axis in axes) for values in (starts, stops)),
            ints(axes),
            ints(steps[axis] for axis in axes),
        )
        if axes
        else g.name(x)
    )


def gather(g: Graph, eqn: Any, x: Value, index: Value) -> str:
    """`x[:, i]` and `x[:, i:j]`, which JAX writes as a gather where the size of an axis is open; and `take_along_axis` on the
    last axis, of relative positions."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    last = len(x.shape) - 1
    if numbers.operand_batching_dims == tuple(range(last)) and numbers.start_index_map == (last,) and sizes[-1] == 1:
        require(numbers.start_indices_batching_dims == tuple(range(last)) and index.shape[-1] == 1, eqn)
        return g.add("GatherElements", x, g.add("Squeeze", index, ints([last + 1])), axis=last)
    if not isinstance(index, np.ndarray) or index.shape != (len(numbers.start_index_map),):
        raise UnsupportedError("gather by computed indices")
    require(not numbers.operand_batching_dims and len(numbers.offset_dims) == len(shape_of(eqn)), eqn)
    axes = [i for i, size in enumerate(sizes) if size != x.shape[i]]
    first = dict(zip(numbers.start_index_map, index.tolist(), strict=True))
    require(all(i in axes or first[i] == 0 for i in first) and all(i in first for i in axes), eqn)
    starts = [first[i] for i in axes]
    stops = [start + sizes[i] for start, i in zip(starts, axes, strict=True)]
    part = g.add("Slice", x, ints(starts), ints(stops), ints(axes)) if axes else g.name(x)
    return g.add("Squeeze", part, ints(numbers.collapsed_slice_dims)) if numbers.collapsed_slice_dims else part


def select(g: Graph, eqn: Any, which: Value, *cases: Value) -> str:
    """One of two by a truth value."""
    require(len(cases) == 2 and which.dtype == bool, eqn)
    return g.add("Where", which, cases[1], cases[0])


def complement_of_error(g: Graph, eqn: Any, x: Value) -> str:
    """erfc, of the exact GELU."""
    return g.add("Sub", np.array(1, x.dtype), g.add("Erf", x))


def _named(op: str) -> Operation:
    return functools.partial(elementwise, op)


def _same(g: Graph, eqn: Any, x: Value) -> str:
    return g.name(x)


OPERATIONS: dict[str, Operation] = {
    **dict.fromkeys(("stop_gradient", "copy", "name", "optimization_barrier"), _same),
    **{
        name: _named(name.capitalize())
        for name in ("add", "sub", "mul", "div", "max", "min", "neg", "exp", "log", "tanh")
    },
    **{name: _named(name.capitalize()) for name in ("sqrt", "erf", "abs", "sign", "floor", "ceil", "sin", "cos")},
    **{name: _named(op) for name, op in (("pow", "Pow"), ("logistic", "Sigmoid"), ("eq", "Equal"), ("lt", "Less"))},
    **{name: _named(op) for name, op in (("gt", "Greater"), ("le", "LessOrEqual"), ("ge", "GreaterOrEqual"))},
    **{name: _named(op) for name, op in (("and", "And"), ("or", "Or"), ("not", "Not"))},
    **{f"reduce_{name}": functools.partial(reduce, f"Reduce{name.capitalize()}") for name in ("sum", "max", "min")},
    "rsqrt": lambda g, eqn, x: g.add("Reciprocal", g.add("Sqrt", x)),
    "square": lambda g, eqn, x: g.add("Mul", x, x),
    "erfc": complement_of_error,
    "integer_pow": power,
    "convert_element_type": cast,
    "broadcast_in_dim": broadcast_in_dim,
    "reshape": lambda g, eqn, x, *_: g.reshape(x, shape_of(eqn)),
    "squeeze": lambda g, eqn, x: g.add("Squeeze", x, ints(eqn.params["dimensions"])),
    "expand_dims": lambda g, eqn, x: g.add("Unsqueeze", x, ints(eqn.params["dimensions"])),
    "transpose": lambda g, eqn, x: transpose(g, x, eqn.params["permutation"]),
    "concatenate": lambda g, eqn, *parts: g.add("Concat", *parts, axis=eqn.params["dimension"]),
    "slice": cut,
    "gather": gather,
    "select_n": select,
    "pad": pad,
    "dot_general": dot_general,
    "conv_general_dilated": convolution,
    "reduce_window_max": max_pool,
}
