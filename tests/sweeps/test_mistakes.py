"""The mistakes that a run keeps for people to look at: which ones, and as what images."""

import json

import numpy as np
import PIL.Image

from vit_jax.data.open import open_source
from vit_jax.sweeps.mistakes import worst_mistakes, write_mistakes


def predictions(labels, predicted, confidence):
    return {
        "index": np.arange(len(labels)),
        "label": np.array(labels),
        "predicted": np.array(predicted),
        "confidence": np.array(confidence, np.float32),
    }


def test_the_most_confident_wrong_predictions_come_first_and_of_equals_the_earlier():
    made = predictions([0, 1, 0, 1, 0], [1, 1, 1, 0, 1], [0.5, 0.99, 0.75, 0.5, 0.5])
    assert worst_mistakes(made).tolist() == [2, 0, 3, 4]  # 1 is right, however confident
    assert worst_mistakes(made, num=2).tolist() == [2, 0]
    assert worst_mistakes(predictions([0, 1], [0, 1], [0.5, 0.5])).tolist() == []


SIZES = {"cat/0": (10, 20), "cat/1": (192, 384), "dog/0": (1, 1_000), "dog/1": (30, 30)}
KEPT = {"cat/0": (10, 20), "cat/1": (96, 192), "dog/0": (1, 192), "dog/1": (30, 30)}  # 192 pixels at most, one at least


def test_mistakes_are_kept_as_small_images_with_what_they_are(tmp_path):
    for number, (name, size) in enumerate(SIZES.items()):
        for split, pixels in (("train", np.zeros((4, 4, 3))), ("test", np.full((*size, 3), 50 * number))):
            file = tmp_path / "photos" / split / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(pixels.astype(np.uint8)).save(file)
    scored = {"dataset": str(tmp_path / "photos"), "split": "test", "data_dir": ""}
    source = open_source(scored["dataset"], "test", "")
    places = {source.read(i)[2].removeprefix("test/").removesuffix(".png"): i for i in range(4)}
    rows = ["dog/1", "dog/0", "cat/1", "cat/0"]  # not in the order of the examples; the last was predicted rightly
    made = predictions([1, 1, 0, 0], [0, 0, 1, 0], [0.61239, 0.9, 0.7, 1.0])
    run = tmp_path / "run"
    run.mkdir()
    np.savez(run / "predictions.npz", **made | {"index": np.array([places[name] for name in rows])})
    write_mistakes(run, scored)
    listed = json.loads((run / "mistakes" / "mistakes.json").read_text())
    expected = [("dog/0", 1, 0, 0.9), ("cat/1", 0, 1, 0.7), ("dog/1", 1, 0, 0.6124)]
    for number, (entry, (name, label, predicted, confidence)) in enumerate(zip(listed, expected, strict=True)):
        about = {"label": label, "predicted": predicted, "confidence": confidence, "name": f"test/{name}.png"}
        assert entry == {"file": f"{number:02d}.png", "index": places[name], **about}
        kept = np.asarray(PIL.Image.open(run / "mistakes" / entry["file"]))
        assert kept.shape == (*KEPT[name], 3)
        assert (kept == 50 * list(SIZES).index(name)).all()


def test_a_run_without_predictions_keeps_none(tmp_path):
    write_mistakes(tmp_path, {"dataset": "nowhere", "split": "test", "data_dir": ""})
    assert list(tmp_path.iterdir()) == []
