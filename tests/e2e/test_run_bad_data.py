"""Data that is damaged or missing: named, counted, and no reason to lose a run."""

import json

import numpy as np
import pytest
from PIL import Image

FINETUNE = "configs/finetune.py:variant=Ti/16,smoke"


@pytest.fixture
def photos(tmp_path):
    """A folder of 3 classes, 20 training and 4 test images each; three training images and a test image are truncated."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 4)):
        for label in ("anemone", "begonia", "crocus"):
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"{i:02d}.jpg")
    bad = ["train/anemone/03.jpg", "train/begonia/00.jpg", "train/crocus/19.jpg", "test/begonia/02.jpg"]
    for name in bad:
        path = tmp_path / "photos" / name
        path.write_bytes(path.read_bytes()[:300])
    return tmp_path / "photos"


def run_on(program, photos, workdir, *words):
    """Fine-tunes on a folder."""
    config = f"--config={FINETUNE},dataset={photos}"
    return program.execute(["-m", "vit_jax.main", config, f"--workdir={workdir}", *words]).finish()


def last_scores(workdir):
    """The last record of metrics.jsonl."""
    return json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])


def test_corrupt_images_are_replaced_reported_and_left_out_of_scores(program, photos, tmp_path):
    finished = run_on(
        program, photos, tmp_path / "run", "--config.data.max_corrupt=3", "--config.evals.test.max_corrupt=1"
    )
    assert finished.code == 0, finished.err
    names = "train/anemone/03.jpg, train/begonia/00.jpg, train/crocus/19.jpg"
    assert f"3 corrupt images were replaced: {names}" in finished.out
    assert "test/begonia/02.jpg" in finished.err
    assert last_scores(tmp_path / "run")["eval/test/num_examples"] == 11


def test_too_many_corrupt_images_stop_the_run_which_goes_on_once_they_are_repaired(program, reading, photos, tmp_path):
    workdir = tmp_path / "run"
    stopped = run_on(program, photos, workdir, "--config.data.max_corrupt=2")
    assert stopped.code == 2
    assert f"{photos} train: 3 of 60 images could not be decoded, more than max_corrupt=2" in stopped.err
    assert "train/anemone/03.jpg, train/begonia/00.jpg, train/crocus/19.jpg" in stopped.err
    assert "Traceback" not in stopped.err
    for label, name in (("anemone", "03"), ("begonia", "00"), ("crocus", "19")):
        whole = (photos / "train" / label / "05.jpg").read_bytes()
        (photos / "train" / label / f"{name}.jpg").write_bytes(whole)
    finished = run_on(program, photos, workdir, "--config.data.max_corrupt=2")
    assert finished.code == 0, finished.err
    assert reading.steps(workdir)[-1] == 16


def test_a_corrupt_test_image_stops_an_evaluator_that_allows_none(program, photos, tmp_path):
    stopped = run_on(program, photos, tmp_path / "run", "--config.evals.test.max_corrupt=0")
    assert stopped.code == 2
    assert f"{photos} test: 1 of 12 images could not be decoded, more than max_corrupt=0" in stopped.err
    assert "test/begonia/02.jpg" in stopped.err
    assert "Traceback" not in stopped.err


def test_missing_data_sets_are_all_listed_with_the_commands_that_prepare_them(program, tmp_path):
    words = ["--config=configs/finetune.py:dataset=cifar10", "--config.evals.test.dataset=oxford_flowers102"]
    stopped = program.call("train", *words, f"--workdir={tmp_path / 'run'}")
    assert stopped.code == 2
    assert "vit_jax prepare cifar10" in stopped.err
    assert "vit_jax prepare oxford_flowers102" in stopped.err
    assert "Traceback" not in stopped.err
    assert not (tmp_path / "run").exists()
