"""`vit_jax predict`: a line for each image, and what becomes of files that are none."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vit_jax import classify
from vit_jax.cli import predict

MODEL = Path(__file__).resolve().parents[1] / "golden" / "timm_token"


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Two images, one of them in a folder below, and a file that is no image."""
    monkeypatch.setattr(predict, "set_up_process", lambda: None)  # the process is the tests'
    rng = np.random.default_rng(0)
    for name in ("a.png", "sub/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        PIL.Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no image")
    return tmp_path


@pytest.mark.slow
def test_what_can_be_read_is_classified_and_the_rest_is_named(photos, capsys):
    words = [f"--model={MODEL}", str(photos), f"{photos}/a.png", "nowhere.png"]
    assert predict.main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [Path(line["file"]).name for line in lines] == ["a.png", "b.png", "a.png"]
    (first, *_) = classify(str(MODEL), [f"{photos}/a.png"])
    assert [name for name, _ in lines[0]["classes"]] == [name for name, _ in first.classes]
    assert [share for _, share in lines[0]["classes"]] == [round(share, 4) for _, share in first.classes]
    assert err.startswith("2 of 5 files cannot be read as images:\n")
    assert f"{photos}/broken.png: " in err
    assert predict.main(words) == 0
    name, share = first.classes[0]
    assert capsys.readouterr().out.splitlines()[0].startswith(f"{photos}/a.png: {name} {100 * share:.1f}%, ")


def test_nothing_that_can_be_read_is_a_mistake(photos, capsys):
    assert predict.main([f"--model={MODEL}", f"{photos}/broken.png", "nowhere.png"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: 2 of 2 files cannot be read as images:\n")


def test_set_and_weights_change_the_model_that_is_asked(photos, capsys):
    assert predict.main([f"--model={MODEL}", f"{photos}/a.png", "--set", "num_classes=0"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(SystemExit):
        predict.main([f"--model={MODEL}", "--weights=best", f"{photos}/a.png"])
    assert "choose from" in capsys.readouterr().err


@pytest.mark.slow
def test_forms_batches_and_top_are_flags(photos, capsys):
    assert predict.main([f"--model={MODEL}", "--format=csv", "--top=2", "--batch=1", f"{photos}/a.png"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head == "file,class_1,probability_1,class_2,probability_2"
    ((_, classes, _),) = classify(str(MODEL), [f"{photos}/a.png"], top=2)
    assert row.split(",")[1::2] == [name for name, _ in classes]
    with pytest.raises(SystemExit):
        predict.main([f"--model={MODEL}", "--top=0", f"{photos}/a.png"])
    assert "--top=0 and --batch=32; expected 1 or more" in capsys.readouterr().err
