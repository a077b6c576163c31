"""Objects in image files: a golden detector's answers, pictures, and COCO's results."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from vit_jax.cli import predict
from vit_jax.convert.load import load
from vit_jax.detect import Detector, Found, describe, draw, is_detector, number_images, rank, results

GOLDEN = Path(__file__).resolve().parent / "golden"
MODEL = str(GOLDEN / "hf_detector")  # positions of 16 x 24 pixels


@pytest.fixture(scope="module")
def detector():
    return Detector.of(load(MODEL, stored_pixels=True, channels=3))


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "set_up_process", lambda: None)  # the process is the tests'
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, shape in (("a_12.png", (32, 48)), ("b_7.png", (20, 60))):
        cv2.imwrite(str(folder / name), rng.integers(0, 256, (*shape, 3), np.uint8))
    (folder / "c_9.png").write_bytes(b"nothing")
    return folder


def found(box, kind, score):
    return Found(
        "x/photo.jpg", np.zeros((100, 200, 3), np.uint8), np.array(box, float), np.array(kind), np.array(score)
    )


ONE = found([[10, 20, 110, 80], [0, 0, 50, 50]], [1, 0], [0.9, 0.3])


@pytest.mark.slow
def test_boxes_are_in_pixels_of_the_stored_image_best_first(detector, photos):
    files = [str(photos / name) for name in ("a_12.png", "b_7.png", "c_9.png")]
    wide, long, bad = detector.files(files)
    module, params = (loaded := load(MODEL, stored_pixels=True, channels=3)).module, loaded.params
    image = cv2.imread(files[0])[..., ::-1]
    small = cv2.resize(image, (24, 16), interpolation=cv2.INTER_AREA)
    outputs = module.apply({"params": params}, small[None].astype(np.float32) / 127.5 - 1)
    logits, boxes = (np.asarray(outputs.extra[name][0], np.float64) for name in ("class_logits", "boxes"))
    share = (np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True))[:, :-1]
    order = np.argsort(-share.max(axis=-1))
    np.testing.assert_allclose(wide.score, share.max(axis=-1)[order], rtol=1e-4)
    np.testing.assert_array_equal(wide.kind, share.argmax(axis=-1)[order])
    x, y, w, h = boxes[order].T
    expected = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1) * [48, 32, 48, 32]
    np.testing.assert_allclose(wide.box, np.clip(expected, 0, [48, 32, 48, 32]), atol=1e-3)
    assert long.box[:, [1, 3]].max() <= 20  # the canvas below the image is no part of it
    assert (bad.image, bad.box.shape) == (None, (0, 4))
    assert "begins with" in bad.error


def test_answers_are_ranked_by_the_probability_of_their_likeliest_class_and_no_object_is_none():
    logits = np.log([[0.1, 0.2, 0.7], [0.1, 0.6, 0.3], [0.5, 0.25, 0.25]])  # no object last
    corners, kind, score = rank(logits, np.array([[0, 0, 1, 1], [0.5, 0.25, 0.5, 0.5], [0.75, 0.5, 0.5, 0.25]]))
    assert kind.tolist() == [1, 0, 1]
    np.testing.assert_allclose(score, [0.6, 0.5, 0.2])
    assert corners.tolist() == [[0.25, 0, 0.75, 0.5], [0.5, 0.375, 1, 0.625], [-0.5, -0.5, 0.5, 0.5]]


def test_a_line_names_what_reaches_the_threshold():
    assert describe(ONE, ("cat", "dog")) == "x/photo.jpg: dog 90% at 10,20,110,80"
    assert describe(ONE, ("cat", "dog"), 0.2).endswith("; cat 30% at 0,0,50,50")
    assert describe(ONE, ("cat", "dog"), 0.95) == "x/photo.jpg: nothing found"


def test_a_picture_has_a_frame_where_the_box_is_and_nothing_below_the_threshold():
    picture = draw(ONE, ("cat", "dog"))
    assert picture.shape == (300, 600, 3)  # three times the image, whose longer side is short of 512
    colored = picture.any(axis=-1)
    assert colored[150, 30]
    assert colored[150, 330]
    assert colored[240, 100]
    assert not colored[150, 100]  # inside
    assert not colored[100, 10]  # of the cat's frame


def test_cocos_results_are_left_top_width_height_under_the_sources_numbers():
    rows = results(ONE, (17, 18), 42)
    assert [{key: row[key] for key in ("image_id", "category_id", "bbox", "score")} for row in rows] == [
        {"image_id": 42, "category_id": 18, "bbox": [10, 20, 100, 60], "score": 0.9},
        {"image_id": 42, "category_id": 17, "bbox": [0, 0, 50, 50], "score": 0.3},
    ]


def test_images_are_numbered_as_coco_names_them_or_in_order():
    assert number_images(["x/000000039769.jpg", "y/000000000139.jpg"]) == [39769, 139]
    assert number_images(["a/1.jpg", "b/1.jpg"]) == [1, 2]
    assert number_images(["cat.jpg", "dog_3.jpg"]) == [1, 2]


def test_only_a_detector_is_one():
    assert is_detector(load(MODEL))
    assert not is_detector(load(GOLDEN / "hf_classifier"))


def test_the_command_writes_pictures_and_results_that_cocos_tools_read(photos, tmp_path, capsys):
    to = tmp_path / "found"
    assert predict.main([f"--model={MODEL}", f"--to={to}", "--threshold=0.1", str(photos)]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert "1 of 3 files cannot be read as images" in captured.err
    assert sorted(path.name for path in to.iterdir()) == ["a_12_12.png", "b_7_7.png", "results.json"]
    truth = COCO()
    truth.dataset = {"images": [{"id": 7}, {"id": 12}], "categories": [{"id": i} for i in range(6)], "annotations": []}
    truth.createIndex()
    read = truth.loadRes(json.loads((to / "results.json").read_text()))
    assert {row["image_id"] for row in read.anns.values()} == {7, 12}
    assert len(read.anns) == 14  # seven queries each
    assert predict.main([f"--model={MODEL}", f"--to={to}", str(photos)]) == 2
    assert "exists; give a folder that does not" in capsys.readouterr().err


def test_json_lines_hold_all_detections(photos, capsys):
    assert predict.main([f"--model={MODEL}", "--json", str(photos / "a_12.png")]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert len(json.loads(line)["objects"]) == 7
    assert predict.main([f"--model={GOLDEN / 'hf_classifier'}", "--to=x", str(photos / "a_12.png")]) == 2
    assert "--to=x is for detectors" in capsys.readouterr().err
