"""`vit_jax explain`: a page from a checkpoint and a folder, and mistakes before anything is measured."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vit_jax.cli import explain

MODEL = Path(__file__).resolve().parents[1] / "golden" / "timm_no_embed_class"  # it has registers


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of three images and a file that is none."""
    monkeypatch.setattr(explain, "set_up_process", lambda: None)  # the process is the tests'
    rng, folder = np.random.default_rng(0), tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        PIL.Image.fromarray(rng.integers(0, 256, (20, 16, 3), np.uint8)).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.mark.slow
def test_a_page_is_written_and_the_unreadable_image_is_named(photos, tmp_path, capsys):
    to = tmp_path / "page"
    words = [str(MODEL), f"--images={photos}", f"--to={to}", "--layer=1", "--head=2", "--class=3", f"--compare={MODEL}"]
    assert explain.main(words) == 0
    out, err = capsys.readouterr()
    assert out == f"{to}/index.html: 3 images\n"
    assert err.endswith(f"1 image cannot be read and left out:\n  {photos}/broken.png\n")
    facts = json.loads((to / "explain.json").read_text())
    assert facts["norms"] == ["patches, median", "patches, largest", "class token", "registers, mean"]
    assert set(facts["classes"]) == {"class 3"}
    assert facts["tables"] == ["cka.csv", "filters.csv", "heads.csv", "norms.csv", "pictures.csv"]
    assert len(list((to / "pictures").glob("*-head-2.png"))) == 3


def test_mistakes_show_before_the_model_is_loaded(photos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    assert explain.main(["no.npz", f"--images={tmp_path}/empty", f"--to={tmp_path}/page"]) == 2
    assert "has no image in it or below" in capsys.readouterr().err
    assert explain.main(["no.npz", f"--images={photos}", f"--to={tmp_path}/file"]) == 2
    assert "another folder with --to" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        explain.main(["no.npz", f"--images={photos}", "--to=x", "--pictures=-1"])
    assert "expected a whole number, 0 or more, found -1" in capsys.readouterr().err
