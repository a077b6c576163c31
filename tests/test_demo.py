"""The demo's answers, which need no browser and no Gradio; tests/share has the page in a real browser."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from vit_jax import demo
from vit_jax.predict import Predictor
from vit_jax.types import UserError

GOLDEN = Path(__file__).parent / "golden"
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def png(path):
    path.write_bytes(cv2.imencode(".png", IMAGE[..., ::-1])[1].tobytes())
    return str(path)


def test_a_classifier_answers_with_its_likeliest_classes_and_with_its_attention():
    model = GOLDEN / "hf_classifier"
    shown = demo.show(str(model))
    assert (shown.title, list(shown.answers)) == ("hf_classifier", ["Classes", "Attention"])
    found = shown.answers["Classes"](IMAGE)
    predictor = Predictor.load(model)
    (row,) = predictor([IMAGE])
    best = np.argsort(-row)[: demo.TOP]
    assert list(found) == [predictor.classes[i] for i in best]
    np.testing.assert_allclose(list(found.values()), row[best], rtol=1e-6)
    attention = shown.answers["Attention"](IMAGE)
    assert (attention.dtype, attention.shape[2], min(attention.shape[:2]) >= demo.SIDE) == (np.uint8, 3, True)


@pytest.mark.slow
def test_a_detector_answers_with_boxes_and_a_model_with_nothing_to_show_is_refused():
    shown = demo.show(str(GOLDEN / "hf_detector"))
    assert list(shown.answers) == ["Objects", "Attention"]
    assert shown.answers["Objects"](IMAGE).shape[2] == 3


def test_uploads_that_are_no_images_or_too_large_are_refused_kindly(tmp_path, monkeypatch):
    np.testing.assert_array_equal(demo.read_upload(png(tmp_path / "right.png")), IMAGE)
    (tmp_path / "cut.png").write_bytes(Path(tmp_path / "right.png").read_bytes()[:200])
    (tmp_path / "text.png").write_text("no image")
    for name in ("cut.png", "text.png", "gone.png"):
        with pytest.raises(UserError, match=r"cannot be read as an image .*try a JPEG or a PNG"):
            demo.read_upload(str(tmp_path / name))
    monkeypatch.setattr(demo, "MAX_MEGABYTES", 0)
    with pytest.raises(UserError, match="bytes"):
        demo.read_upload(str(tmp_path / "right.png"))
