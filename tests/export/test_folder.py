"""The folder: agreement with predictions, the page's own lines in a process without vit_jax, and nothing half written."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import PIL.Image
import pytest
from tiny_exports import tiny

from vit_jax.convert.save import save_model
from vit_jax.export import folder
from vit_jax.export.folder import compare, export
from vit_jax.export.program import make_program
from vit_jax.predict import Predictor
from vit_jax.types import UserError

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.mark.slow
def test_an_export_gives_100_photographs_the_probabilities_of_predict(tmp_path):
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (*rng.integers(8, 60, 2), 3), np.uint8) for _ in range(100)]
    predictor = Predictor.load(str(GOLDEN / "timm_token"))
    prepared = np.stack([predictor.transform.map_image(x, rng) for x in photos])
    done = export(str(GOLDEN / "timm_token"), tmp_path / "out")
    assert [Path(file).name for file in done.files] == ["README.md", "labels.json", "model.stablehlo"]
    assert done.difference < 1e-6
    run = jax.export.deserialize(bytearray((tmp_path / "out" / "model.stablehlo").read_bytes())).call
    np.testing.assert_allclose(run(prepared)["probabilities"], predictor(photos), atol=1e-5)
    assert json.loads((tmp_path / "out" / "labels.json").read_text()) == [f"class {i}" for i in range(7)]


WITHOUT = """
import sys
sys.modules["vit_jax"] = None  # an import of it fails
exec(open("lines.py").read())
"""


@pytest.mark.slow
def test_the_lines_of_the_page_run_where_there_is_no_vit_jax(tmp_path):
    out = tmp_path / "out"
    loaded = tiny(meta={"class_names": ["ape", "bee", "cat", "dog", "eel"]})
    save_model(loaded, str(tmp_path / "model"), "orbax")
    export(tmp_path / "model", out, resolution=(16, 12))
    PIL.Image.fromarray(np.random.default_rng(3).integers(0, 256, (16, 12, 3), np.uint8)).save(out / "photo.png")
    code = re.search(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)[1]
    (out / "lines.py").write_text(code.replace("photo.jpg", "photo.png"))
    env = {key: x for key, x in os.environ.items() if key != "PYTHONPATH"} | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", WITHOUT], cwd=out, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    predictor = Predictor.load(tmp_path / "model", resolution=(16, 12))
    best = np.argmax(predictor([out / "photo.png"])[0])
    assert done.stdout.split() == [predictor.classes[best]]


@pytest.mark.slow
def test_what_exists_is_not_touched_and_nothing_half_is_left(tmp_path, monkeypatch):
    save_model(tiny(), str(tmp_path / "model"), "orbax")
    with pytest.raises(UserError, match="model exists; give a folder that does not"):
        export(tmp_path / "model", tmp_path / "model")
    with pytest.raises(UserError, match="format is 'tflite'; expected stablehlo or onnx"):
        export(tmp_path / "model", tmp_path / "out", "tflite")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "write", full)
    with pytest.raises(UserError, match=r"out cannot be written \(No space left on device\); give another folder"):
        export(tmp_path / "model", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.slow
def test_a_file_with_other_numbers_is_refused(tmp_path, monkeypatch):
    program = make_program(tiny())
    monkeypatch.setattr(
        folder.stablehlo, "open_file", lambda file: lambda x: {"probabilities": np.full((len(x), 5), 0.2)}
    )
    with pytest.raises(UserError, match="the stablehlo file of tiny_vit gives other numbers than the model"):
        compare(program, "stablehlo", tmp_path / "model")
