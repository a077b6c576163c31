"""The graph: open sizes, shared constants, and nothing that no output needs."""

import jax
import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from vit_jax.export.onnx_graph import IR, OPSET, Graph, Tensor

SHAPE = jax.export.symbolic_shape("b, 2, 3")


@pytest.fixture
def graph():
    return Graph(SHAPE, np.float32, "images")


def test_the_size_of_the_batch_stays_open(graph):
    model = graph.finish({"y": Tensor(graph.add("Neg", graph.input), SHAPE, np.dtype(np.float32))})
    (dims,) = (x.type.tensor_type.shape.dim for x in model.graph.input)
    assert [d.dim_param or d.dim_value for d in dims] == ["b", 2, 3]
    assert (model.ir_version, model.opset_import[0].version) == (IR, OPSET)
    for b in (1, 5):
        x = np.ones((b, 2, 3), np.float32)
        np.testing.assert_array_equal(ReferenceEvaluator(model).run(["y"], {"images": x})[0], -x)


def test_axes_are_repeated_to_multiples_of_the_batch(graph):
    b, *rest = SHAPE
    out = graph.expand(np.ones((1, 1, 3), np.float32), (2 * b, *rest))
    out = graph.reshape(out, (b, 12))
    model = graph.finish({"y": Tensor(out, (b, 12), np.dtype(np.float32))})
    (y,) = ReferenceEvaluator(model).run(None, {"images": np.zeros((4, 2, 3), np.float32)})
    np.testing.assert_array_equal(y, np.ones((4, 12)))
    sure = Graph((1, 2), np.float32, "x")
    model = sure.finish({"y": Tensor(sure.expand(sure.input, (3, 2)), (3, 2), np.dtype(np.float32))})
    assert ReferenceEvaluator(model).run(None, {"x": np.zeros((1, 2), np.float32)})[0].shape == (3, 2)


def test_equal_small_constants_are_one_and_unused_ones_none(graph):
    graph.add("Mul", graph.input, np.full(3, 7, np.float32))  # no output needs it
    twice = [np.full((1, 2, 3), 5, np.float32) for _ in range(2)]
    out = graph.add("Add", graph.add("Add", graph.input, twice[0]), twice[1])
    model = graph.finish({"y": Tensor(out, SHAPE, np.dtype(np.float32))})
    assert [node.op_type for node in model.graph.node] == ["Add", "Add", "Identity"]
    assert len(model.graph.initializer) == 1
