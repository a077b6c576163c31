"""Exports under onnxruntime: every family, batches of 1 and 7, and another resolution."""

import numpy as np
import onnxruntime
import pytest
from tiny_exports import FAMILIES, images, outputs, tiny

from vit_jax.export import folder, onnx
from vit_jax.export.program import make_program


@pytest.mark.parametrize("resolution", [(8, 12), (20, 16)])
@pytest.mark.parametrize("family", FAMILIES)
def test_onnxruntime_gives_the_models_numbers(family, resolution, tmp_path):
    program = make_program(tiny(family, resolution))
    folder.write(program, "onnx", tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for b in (1, 7):
        found = session.run(list(program.names), {"images": images(b, resolution)})
        expected = outputs(program, images(b, resolution))
        for name, value in zip(program.names, found, strict=True):
            np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5)


def test_a_file_is_run_before_it_counts(tmp_path):
    program = make_program(tiny())
    folder.write(program, "onnx", tmp_path / "model.onnx")
    assert onnx.open_file(tmp_path / "model.onnx") is not None
    assert folder.compare(program, "onnx", tmp_path / "model.onnx") < 1e-6
