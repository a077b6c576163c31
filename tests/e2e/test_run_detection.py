"""A detector on eight canvases, from a folder with COCO's annotations to its pictures: trained, killed, resumed, scored."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest

from vit_jax.data.prepare.canvases import draw_canvas, read_digits
from vit_jax.train.checkpoint import read_params
from vit_jax.train.folders import run_folder

ROOT = Path(__file__).parents[2]
SMALL = (
    *("--config.model.depth=2", "--config.model.queries=12", "--config.model.position_grid=(0,0)"),
    *("--config.data.resolution=128", "--config.data.recipe=resize_flip", "--config.data.flip=False"),
    *("--config.data.batch_size=8", "--config.evals.val.batch_size=8", "--config.evals.val.recipe=eval"),
    *("--config.optim.lr=0.001", "--config.optim.clip_norm=1.0", "--config.objective.no_object=0.2"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Eight canvases of real digits; category ids have holes, and one annotation is of no image."""
    root = tmp_path_factory.mktemp("coco")
    images, annotations = [], [{"id": 999, "image_id": 77, "category_id": 100, "bbox": [0, 0, 5, 5]}]
    for split in ("train", "val"):
        (root / split).mkdir()
    digits = read_digits()["train"]
    for number in range(8):
        canvas = draw_canvas(*digits, np.random.default_rng(number))
        name = f"{number}.png"
        for split in ("train", "val"):
            cv2.imwrite(str(root / split / name), canvas.image)
        images.append({"id": number, "file_name": name, "height": 128, "width": 128})
        for (left, top, right, bottom), kind in zip(canvas.box.tolist(), canvas.kind.tolist(), strict=True):
            box = [left, top, right - left, bottom - top]
            annotations.append({"id": len(annotations), "image_id": number, "category_id": 100 + 7 * kind, "bbox": box})
    categories = [{"id": 100 + 7 * kind, "name": f"digit {kind}"} for kind in range(10)]
    for split in ("train", "val"):
        held = {"images": images, "categories": categories, "annotations": annotations}
        (root / f"instances_{split}.json").write_text(json.dumps(held))
    return root


def command(verb: str, *words: str) -> list[str]:
    return [sys.executable, "-m", "vit_jax", verb, *words]


def environment() -> dict[str, str]:
    return {**{k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}, "JAX_PLATFORMS": "cpu"}


def call(verb: str, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(verb, *words), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600
    )


def train(folder: Path, workdir: Path, *more: str) -> list[str]:
    config = f"--config=configs/detection.py:variant=Nano/16,dataset={folder}"
    return [config, f"--workdir={workdir}", *SMALL, *more]


def test_eight_images_are_learnt_by_heart_and_their_boxes_written(folder, tmp_path):
    duration = (
        "--config.train.duration=360 steps",
        "--config.checkpoint.every=360 steps",
        "--config.evals.val.every=360 steps",
    )
    done = call("train", *train(folder, tmp_path / "run", *duration))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 annotation left out, of images that are not listed: id 999" in done.stdout
    scores = json.loads((tmp_path / "run" / "run.json").read_text())["scores"]
    assert scores["eval/val/ap"] > 0.9
    assert scores["eval/val/ap50"] > 0.95
    found = call("predict", f"--model={tmp_path / 'run'}", f"--to={tmp_path / 'found'}", str(folder / "val"))
    assert found.returncode == 0, found.stdout + found.stderr
    assert len(list((tmp_path / "found").glob("*.png"))) == 8
    rows = json.loads((tmp_path / "found" / "results.json").read_text())
    truth = json.loads((folder / "instances_val.json").read_text())["annotations"][1:]
    sure = {(row["image_id"], row["category_id"]) for row in rows if row["score"] > 0.5}
    wanted = {(row["image_id"], row["category_id"]) for row in truth}  # the images' names are their numbers
    assert len(sure & wanted) > 0.9 * len(wanted)


def test_a_killed_run_of_two_sizes_resumes_to_the_bit(folder, tmp_path):
    steps = (
        "--config.train.duration=30 steps",
        "--config.checkpoint.every=5 steps",
        "--config.evals.val.every=30 steps",
    )
    steps += ("--config.model.depth=1", "--config.train.log_every=5 steps")
    # A checkpoint splits a round of two sizes.
    steps += ("--config.data.sizes=(96,128),(128,96)", "--config.model.positions=sincos_2d")
    whole = call("train", *train(folder, tmp_path / "whole", *steps))
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert "compiling the training step for 2 sizes of images, a program each" in whole.stdout
    assert "96x128, 128x96: training batches take each once in 2 steps; 2 programs" in whole.stdout
    words = command("train", *train(folder, tmp_path / "killed", *steps))
    with subprocess.Popen(
        words, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 300
        while not (tmp_path / "killed" / "checkpoints" / "5").is_dir() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    resumed = call("train", *train(folder, tmp_path / "killed", *steps))
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    params = [read_params(run_folder(str(tmp_path / name)), average=False)[0] for name in ("whole", "killed")]
    jax.tree.map(np.testing.assert_array_equal, *params)


def test_mixup_and_other_labels_are_refused_in_one_message(folder, tmp_path):
    mixed = call("train", *train(folder, tmp_path / "run", "--config.train.mixup=0.2"))
    assert mixed.returncode == 2
    assert "the loss of config.objective.name=detection is not linear in its target" in mixed.stderr
    classes = call("train", *train(Path("digits"), tmp_path / "run"), "--config.evals={}")
    assert classes.returncode == 2
    words = [f"--config=configs/finetune.py:variant=Ti/16,dataset={folder}", f"--workdir={tmp_path / 'run'}"]
    boxes = call("train", *words)
    assert boxes.returncode == 2
    assert "boxes" in boxes.stderr
    assert not (tmp_path / "run").exists()
