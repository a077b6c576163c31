"""Every family as ONNX, run by the reference implementation of the package onnx, which is numpy."""

import sys

import jax
import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from tiny_exports import FAMILIES, images, outputs, tiny

from vit_jax.export.onnx import INPUT, make_model, open_file, translate, write
from vit_jax.export.onnx_graph import Graph
from vit_jax.export.onnx_ops import UnsupportedError
from vit_jax.export.program import make_program
from vit_jax.types import UserError


def check(loaded, output=None, resolution=(8, 12)):
    program = make_program(loaded, output)
    model = make_model(program)
    onnx.checker.check_model(model, full_check=True)
    run = ReferenceEvaluator(model)
    assert [x.name for x in model.graph.output] == list(program.names)
    for b in (1, 7):
        batch = images(b, resolution)
        found = run.run(list(program.names), {INPUT: batch})
        for name, value in zip(program.names, found, strict=True):
            expected = outputs(program, batch)[name]
            assert (value.dtype, value.shape) == (np.float32, expected.shape)
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_models_numbers_at_any_batch(family):
    check(tiny(family))


@pytest.mark.slow
def test_features_and_another_resolution():
    check(tiny("vit", (16, 20)), "features", (16, 20))
    check(tiny("hybrid", (20, 24)), None, (20, 24))


@pytest.mark.slow
def test_no_part_that_the_output_does_not_need_is_in_the_file():
    """An MAE's decoder, and the arithmetic on parameters alone, such as the standardising of kernels."""
    weights = sum(np.prod(x.dims) for x in check(tiny("mae")).graph.initializer)
    params = tiny("mae").params
    encoder = sum(np.size(x) for x in jax.tree.leaves({k: x for k, x in params.items() if k != "decoder"}))
    assert weights < encoder + 200
    graph = check(tiny("resnet")).graph
    kernels = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    assert len(kernels) == 5
    assert kernels <= {x.name for x in graph.initializer}


def test_what_onnx_cannot_hold_is_refused_with_the_reason():
    with pytest.raises(UserError, match=r"tiny_vit computes in bfloat16.*as stablehlo"):
        make_model(make_program(tiny(dtype="bfloat16")))
    program = make_program(tiny())._replace(run=lambda x: {"probabilities": jax.numpy.cumsum(x[:, 0, 0], axis=1)})
    with pytest.raises(UserError, match=r"tiny_vit has an operation .*: cumsum.*; export it as stablehlo"):
        make_model(program)


def test_values_of_parameters_alone_are_computed_and_not_written():
    graph = Graph((2, 3), np.float32, INPUT)
    table = np.arange(6, dtype=np.float32).reshape(2, 3)
    traced = jax.make_jaxpr(lambda x: x + jax.numpy.exp(table) * 2)(np.zeros((2, 3), np.float32))
    (out,) = translate(graph, traced.jaxpr, traced.consts, [graph.input])
    assert [node.op_type for node in graph.nodes] == ["Add"]
    (constant,) = graph.constants.values()
    np.testing.assert_allclose(constant, np.exp(np.arange(6.0).reshape(2, 3)) * 2, rtol=1e-6)
    assert out.shape == (2, 3)
    traced = jax.make_jaxpr(lambda x: jax.lax.scan(lambda c, y: (c + y, c), x[0], x)[0])(np.zeros((2, 3), np.float32))
    with pytest.raises(UnsupportedError, match="scan"):
        translate(
            Graph((2, 3), np.float32, INPUT), traced.jaxpr, traced.consts, [Graph((2, 3), np.float32, INPUT).input]
        )


def test_weights_above_the_limit_of_a_file_lie_beside_it(tmp_path, monkeypatch):
    graph = Graph((2, 400), np.float32, INPUT)
    weights = np.arange(400, dtype=np.float32)
    traced = jax.make_jaxpr(lambda x: x * weights[None])(np.zeros((2, 400), np.float32))
    model = graph.finish({"y": translate(graph, traced.jaxpr, traced.consts, [graph.input])[0]})
    write(model, tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    monkeypatch.setattr("vit_jax.export.onnx.LIMIT", 1000)
    write(model, tmp_path / "large.onnx")
    assert (tmp_path / "large.onnx.data").read_bytes()[:1600] == weights.tobytes()
    (y,) = ReferenceEvaluator(str(tmp_path / "large.onnx")).run(None, {INPUT: np.ones((2, 400), np.float32)})
    np.testing.assert_array_equal(y, np.stack([weights, weights]))


def test_without_onnxruntime_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert open_file(tmp_path / "model.onnx") is None


def test_without_onnx_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"pip install 'vit_jax\[onnx\]'"):
        make_model(make_program(tiny()))
