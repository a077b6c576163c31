"""Each operation against numpy, alone: JAX traces a line, and onnx's reference implementation runs its translation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from onnx.reference import ReferenceEvaluator

from vit_jax.export.onnx import translate
from vit_jax.export.onnx_graph import Graph, Tensor
from vit_jax.export.onnx_ops import OPERATIONS, UnsupportedError

X = np.random.default_rng(0).standard_normal((2, 4, 6, 3)).astype(np.float32)
KERNEL = np.random.default_rng(1).standard_normal((3, 2, 3, 5)).astype(np.float32)


def convolved(x):
    """Stride (2, 1), no padding, dilation (1, 2)."""
    out = np.zeros((2, 1, 4, 5))
    for i in range(3):
        for j in range(2):
            out += np.einsum("bhwc,cd->bhwd", x[:, i : i + 1, 2 * j : 2 * j + 4].astype(np.float64), KERNEL[i, j])
    return out


def conv(x):
    return lax.conv_general_dilated(
        x, KERNEL, (2, 1), "VALID", rhs_dilation=(1, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def pool(x):
    pads = ((0, 0), (1, 0), (0, 0), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 2, 1), (1, 2, 2, 1), pads)


CASES = {
    "erfc": (lax.erfc, lambda x: np.vectorize(math.erfc)(x)),
    "integer_pow": (lambda x: x**3 + x**4 + x**-1, lambda x: x**3.0 + x**4.0 + 1 / x),
    "rsqrt": (lambda x: lax.rsqrt(x * x), lambda x: 1 / np.abs(x)),
    "logistic": (jax.nn.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    "slice": (lambda x: x[:, 1:4:2, :, 1:], lambda x: x[:, 1:4:2, :, 1:]),
    "pad": (lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 0), (0, 0)), constant_values=3), None),
    "select_n": (lambda x: jnp.where(x > 0, x, x * np.float32(2)), lambda x: np.where(x > 0, x, 2 * x)),
    "reduce_max": (lambda x: x.max(axis=(1, 3)), lambda x: x.max(axis=(1, 3))),
    "transpose": (lambda x: x.transpose(2, 0, 3, 1), lambda x: x.transpose(2, 0, 3, 1)),
    "concatenate": (lambda x: jnp.concatenate([x, x + 1], 2), lambda x: np.concatenate([x, x + 1], 2)),
    "broadcast_in_dim": (
        lambda x: x * x[:, :1] + x.sum(3)[..., None],
        lambda x: x * x[:, :1] + x.sum(3, keepdims=True),
    ),
    "convert_element_type": (lambda x: (x > 0).astype(jnp.int32), lambda x: (x > 0).astype(np.int32)),
    "expand_dims": (lambda x: lax.expand_dims(x, (1, 5)), lambda x: x[:, None, ..., None]),
    "attention": (
        lambda x: jnp.einsum("bnhk,bmhk->bhnm", x, x + 1),
        lambda x: np.einsum("bnhk,bmhk->bhnm", x.astype(np.float64), x + 1.0),
    ),
    "swapped": (
        lambda x: jnp.einsum("dw,bhwc->bhdc", np.ones((7, 6), np.float32), x),
        lambda x: np.repeat(x.sum(2, keepdims=True), 7, 2),
    ),
    "two_sums": (
        lambda x: jnp.einsum("bhwc,wcde->bhde", x, KERNEL.reshape(-1)[:36].reshape(6, 3, 2, 1)),
        lambda x: np.einsum("bhwc,wcde->bhde", x.astype(np.float64), KERNEL.reshape(-1)[:36].reshape(6, 3, 2, 1)),
    ),
    "take_along_axis": (
        lambda x: jnp.take_along_axis(x, jnp.broadcast_to(jnp.array([2, 0]), (2, 4, 6, 2)), axis=-1),
        lambda x: x[..., [2, 0]],
    ),
    "conv_general_dilated": (conv, convolved),
    "reduce_window_max": (pool, None),
}


def run(function, x=X):
    graph = Graph(x.shape, x.dtype, "images")
    traced = jax.make_jaxpr(function)(x)
    (out,) = translate(graph, traced.jaxpr, traced.consts, [graph.input])
    return ReferenceEvaluator(graph.finish({"y": out})).run(None, {"images": x})[0]


@pytest.mark.parametrize("case", CASES)
def test_an_operation_gives_numpys_numbers(case):
    function, by_numpy = CASES[case]
    if case == "pad":
        expected = np.pad(X, ((0, 0), (1, 2), (0, 0), (0, 0)), constant_values=3)
    elif case == "reduce_window_max":
        padded = np.pad(X, ((0, 0), (1, 0), (0, 0), (0, 0)), constant_values=-9)
        expected = np.stack([padded[:, i : i + 3].max(1) for i in (0, 2)], 1).reshape(2, 2, 3, 2, 3).max(3)
    else:
        expected = by_numpy(X)
    found = run(function)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: lax.conv_transpose(x, KERNEL, (2, 2), "VALID"), "conv_general_dilated of this form"),
        (lambda x: lax.pad(x, np.float32(0), ((0, 0, 0), (0, 0, 0), (0, 0, 0), (0, -2, 1))), "pad of this form"),
        (
            lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 1, 1, 1), (1, 1, 1, 1), "VALID"),
            "reduce_window_max of this form",
        ),
        (lambda x: x[jnp.argsort(x[:, 0, 0, 0])], "sort"),
    ],
)
def test_a_form_without_translation_is_named(function, text):
    with pytest.raises(UnsupportedError, match=text):
        run(function)


def test_a_repeated_operand_is_not_written_out():
    """A bias that is added to every token: the node reads the bias, and no node repeats it."""
    bias = np.arange(3, dtype=np.float32)
    shape = jax.export.symbolic_shape("b, 4, 3")
    graph = Graph(shape, np.float32, "images")
    traced = jax.make_jaxpr(lambda x: x + bias[None, None])(jax.ShapeDtypeStruct(shape, np.float32))
    (out,) = translate(graph, traced.jaxpr, traced.consts, [graph.input])
    model = graph.finish({"y": out})
    assert [node.op_type for node in model.graph.node] == ["Add", "Identity"]
    assert isinstance(out, Tensor)
    assert "add" in OPERATIONS
