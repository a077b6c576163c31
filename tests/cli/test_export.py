"""`vit_jax export`: files, and the sentence about the check."""

from pathlib import Path

import pytest

from vit_jax.cli import export
from vit_jax.export.folder import Export

MODEL = Path(__file__).resolve().parents[1] / "golden" / "timm_token"


@pytest.fixture
def asked(monkeypatch):
    """What the library is asked for, and what it answers."""
    monkeypatch.setattr(export, "set_up_process", lambda: None)  # the process is the tests'
    calls = []
    monkeypatch.setattr(
        "vit_jax.export.folder.export",
        lambda *words, **options: calls.append((words, options)) or Export(("out/model.onnx",), None),
    )
    return calls


def test_flags_reach_the_library_and_an_unchecked_file_is_reported(asked, capsys):
    words = [
        "runs/mine",
        "--to=out",
        "--format=onnx",
        "--output=features",
        "--weights=average",
        "--set",
        "resolution=8,8",
    ]
    assert export.main(words) == 0
    assert asked == [(("runs/mine", "out", "onnx", "features"), {"weights": "average", "resolution": (8, 8)})]
    out = capsys.readouterr().out
    assert out.startswith("wrote out/model.onnx\nthe file was not run")


@pytest.mark.slow
def test_a_checked_file_is_reported_with_its_difference(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, "set_up_process", lambda: None)
    assert export.main([str(MODEL), f"--to={tmp_path}/out", "--output=features"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [f"wrote {tmp_path}/out/{name}" for name in ("README.md", "labels.json", "model.stablehlo")]
    assert lines[3].startswith("the file was run: its outputs differ from the model's by at most ")
    assert export.main([str(MODEL), f"--to={tmp_path}/out"]) == 2
    assert "exists; give a folder that does not" in capsys.readouterr().err
