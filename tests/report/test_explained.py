"""The page of an explanation: what its files hold is drawn, the same files give the same bytes, damaged files are named."""

import json

import numpy as np
import pytest

from vit_jax.report import explained
from vit_jax.report.explained import write_explained
from vit_jax.types import UserError

HOSTILE = "<script>alert(1)</script>"
FACTS = {
    "checkpoint": "runs/mine",
    "other": "",
    "model": "VisionTransformer, 9 parameters",
    "resolution": [4, 6],
    "grid": [2, 3],
    "patch": [2, 2],
    "tokens": 9,
    "images": "photos",
    "measured": 5,
    "corrupt": ["broken.png"],
    "layer": 2,
    "heads": [1, 2],
    "pictures": [f"{HOSTILE}.png"],
    "classes": ["cat"],
    "norms": ["patches, median", "patches, largest"],
    "positions": "vectors",
    "notes": [],
    "tables": ["heads.csv"],
}


def write(to, facts=(), leave_out=()):
    """The files of a model of two layers and two heads."""
    rng = np.random.default_rng(0)
    shapes = {"filters": (3, 2, 2, 3), "filters_variance": (3,), "positions": (1, 2, 3, 2, 3), "distance": (2, 2)}
    shapes |= {"entropy": (2, 2), "norms": (2, 2), "cka": (2, 2), "rollout": (1, 2, 3), "gradient_rollout": (1, 2, 3)}
    shapes |= {"heads": (1, 2, 2, 3), "norm_maps": (1, 2, 3), "probabilities": (1,)}
    arrays = {name: rng.random(shape) for name, shape in shapes.items() if name not in leave_out}
    arrays["images"] = rng.integers(0, 256, (1, 4, 6, 3), np.uint8)
    np.savez(to / "explain.npz", **arrays)
    (to / "explain.json").write_text(json.dumps(FACTS | dict(facts)))


@pytest.mark.slow
def test_the_page_shows_every_figure_and_is_the_same_for_the_same_files(tmp_path):
    write(tmp_path)
    write_explained(tmp_path)
    text = (tmp_path / "index.html").read_text()
    assert text.count("<svg viewBox") == 6  # filters, positions, distance, entropy, norms, CKA
    for words in ("5 of photos, at 4x6 pixels; 1 left out", "broken.png", "2x3 of 2x2 pixels", "what speaks for cat"):
        assert words in text
    assert HOSTILE not in text
    pictures = {file.name for file in (tmp_path / "pictures").iterdir()}
    assert pictures == {f"1-{kind}.png" for kind in ("image", "rollout", "class", "head-1", "head-2", "norms")}
    assert all(f'src="pictures/{name}"' in text for name in pictures)
    assert (tmp_path / "rollout.png").exists()
    write_explained(tmp_path)
    assert (tmp_path / "index.html").read_text() == text


@pytest.mark.slow
def test_a_model_without_attention_has_a_page_with_its_notes(tmp_path):
    gone = ("positions", "distance", "entropy", "norms", "cka", "rollout", "gradient_rollout", "heads", "norm_maps")
    write(tmp_path, {"grid": [], "patch": [], "notes": ["It has no attention."], "classes": []}, gone)
    write_explained(tmp_path)
    text = (tmp_path / "index.html").read_text()
    assert text.count("<svg viewBox") == 1
    assert "It has no attention." in text
    assert "Where it looks" not in text
    assert not (tmp_path / "rollout.png").exists()


def test_dashed_lines_are_of_attention_to_all_alike(monkeypatch):
    lines = {}
    monkeypatch.setattr(explained, "_heads", lambda name, values, even, *_: lines.update({name: even}))
    explained._charts({"distance": np.ones((2, 2)), "entropy": np.ones((2, 2))}, FACTS)
    # Two rows of three patches of 2x2 pixels: of the 36 pairs 6 are apart by 0, 14 by 2, 8 by sqrt(8), 4 by 4, 4 by sqrt(20).
    assert lines["distance"] == pytest.approx((14 * 2 + 8 * 8**0.5 + 4 * 4 + 4 * 20**0.5) / 36)
    assert lines["entropy"] == pytest.approx(
        np.log(9)
    )  # the class token, and a detector's tokens, are attended to as well


def test_damaged_files_and_those_of_another_run_are_named(tmp_path):
    write(tmp_path, leave_out=("filters",))
    with pytest.raises(UserError, match=r"do not belong together .*'filters'.*run vit_jax explain again"):
        write_explained(tmp_path)
    (tmp_path / "explain.npz").write_bytes((tmp_path / "explain.npz").read_bytes()[:100])
    with pytest.raises(UserError, match=r"explain\.npz cannot be read as the arrays"):
        write_explained(tmp_path)
    (tmp_path / "explain.json").write_text("{")
    with pytest.raises(UserError, match=r"explain\.json cannot be read as JSON"):
        write_explained(tmp_path)
