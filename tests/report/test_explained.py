"""The page of an explanation: what its files hold is drawn, the same files give the same bytes, damaged files are named."""

import json

import cv2
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


def write(to, facts=(), leave_out=(), **more):
    """The files of a model of two layers and two heads."""
    rng = np.random.default_rng(0)
    shapes = {"filters": (3, 2, 2, 3), "filters_variance": (3,), "positions": (1, 2, 3, 2, 3), "distance": (2, 2)}
    shapes |= {"entropy": (2, 2), "norms": (2, 2), "cka": (2, 2), "rollout": (1, 2, 3), "gradient_rollout": (1, 2, 3)}
    shapes |= {"heads": (1, 2, 2, 3), "norm_maps": (1, 2, 3), "probabilities": (1,)}
    arrays = {name: rng.random(shape) for name, shape in shapes.items() if name not in leave_out}
    arrays["images"] = rng.integers(0, 256, (1, 4, 6, 3), np.uint8)
    np.savez(to / "explain.npz", **arrays | more)
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


@pytest.mark.slow
def test_a_detectors_objects_are_framed_on_the_image_and_its_rollout(tmp_path):
    # The image of 4x6 pixels is enlarged 56 times, then twice by the frames' drawing: a pixel is 112 of the picture.
    objects = {"boxes": np.array([[[1, 1, 4, 3], [0, 0, 6, 4]]], np.float32)}
    objects |= {"box_classes": np.array([[1, 0]]), "box_scores": np.array([[0.5, 0.49]])}
    black = {"images": np.zeros((1, 4, 6, 3), np.uint8)}
    gone = ("gradient_rollout", "probabilities")
    write(tmp_path, {"classes": [], "object_classes": ["cat", HOSTILE]}, gone, **objects, **black)
    write_explained(tmp_path)
    scale, blue = 112, [64, 120, 255]  # hue 0.618, saturation 0.75: sector 3 of the wheel, by hand
    for kind in ("image", "rollout"):
        picture = cv2.imread(str(tmp_path / "pictures" / f"1-{kind}.png"))[..., ::-1]
        assert picture.shape == (4 * scale, 6 * scale, 3)
        for y, x in ((3, 2), (2, 1), (2, 4)):  # on the frame's edge below, left and right
            assert picture[y * scale, x * scale].tolist() == blue
        blues = (picture == blue).all(axis=-1)
        assert not blues[2 * scale, 2 * scale]  # inside
        assert not blues[: scale // 2].any()  # above
    image = cv2.imread(str(tmp_path / "pictures" / "1-image.png"))
    assert not image[3 * scale + 9 :].any()  # of a score below a half nothing is drawn
    text = (tmp_path / "index.html").read_text()
    assert "image: 1 object found with a score of 50% or more" in text
    assert "attention rollout, with the objects found" in text
    assert text.count('class="large"') == 2
    # A model without maps, in whose image nothing is found.
    gone += ("rollout", "heads", "norm_maps")
    write(tmp_path, {"classes": [], "object_classes": ["cat"]}, gone, **objects | {"box_scores": np.zeros((1, 2))})
    write_explained(tmp_path)
    assert "image: no object found with a score of 50% or more" in (tmp_path / "index.html").read_text()


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
