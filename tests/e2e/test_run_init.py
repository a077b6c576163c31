"""From someone else's weights to a fine-tuned model: started by `--config.init=PATH` alone, then scored, asked, converted."""

import json
import shutil
from pathlib import Path

import numpy as np
import numpy_vit
import pytest
from PIL import Image

from vit_jax import classify
from vit_jax.cli.convert import main as convert
from vit_jax.evaluate import evaluate
from vit_jax.types import UserError

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Dark and bright noise, 24 to train on and 8 to test."""
    root, rng = tmp_path_factory.mktemp("own") / "images", np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for label, low in (("bright", 150), ("dark", 0)):
            place = root / split / label
            place.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(low, low + 100, (40 + i, 60, 3), np.uint8)).save(place / f"{i}.jpg")
    return root


@pytest.fixture
def finetune(program, folder):
    """Fine-tunes for twelve steps at 24 pixels."""

    def finetune(init, workdir, *more, refused=False):
        small = ("--config.data.resolution=24", "--config.data.batch_size=8", "--config.train.duration=12", *more)
        words = [
            f"--config=configs/finetune.py:dataset={folder}",
            f"--config.init={init}",
            *small,
            f"--workdir={workdir}",
        ]
        if refused:
            return program.call("train", *words)
        finished = program.execute(["-m", "vit_jax.main", *words]).finish()
        assert "Traceback" not in finished.err, finished.err
        return finished

    return finetune


def npz_of(tmp_path):
    """A release-like npz."""
    assert convert([f"--model={GOLDEN / 'timm_token'}", f"--to={tmp_path / 'released.npz'}", "--format=npz"]) == 0
    return tmp_path / "released.npz"


def assert_learned(workdir, gelu, eps):
    """The model is the checkpoint's, its positions resized, and it tells bright from dark."""
    config = json.loads((workdir / "config.json").read_text())
    assert (config["model"]["gelu"], config["model"]["norm_eps"]) == (gelu, eps)
    assert config["model"]["width"] == 24  # the checkpoint's, not B/16's
    report = (workdir / "init_report.txt").read_text()
    assert "resized  Transformer/posembed_input/pos_embedding 4x4 -> 6x6" in report
    assert json.loads((workdir / "run.json").read_text())["scores"]["eval/test/top1"] == 1.0


@pytest.mark.parametrize("form", ["npz", "timm_average"])
def test_a_folder_of_images_is_learned_from_each_format(finetune, tmp_path, form):
    done = finetune(npz_of(tmp_path) if form == "npz" else GOLDEN / form, tmp_path / "run")
    assert done.code == 0, done.err
    assert_learned(tmp_path / "run", "erf", 1e-6)


def test_a_run_from_hugging_faces_weights_resumes_without_them_and_is_scored_and_asked(finetune, folder, tmp_path):
    shutil.copytree(GOLDEN / "hf_classifier", tmp_path / "gone")
    first = finetune(tmp_path / "gone", tmp_path / "run")
    assert first.code == 0, first.err
    assert_learned(tmp_path / "run", "erf", 1e-12)
    # As a run that ends short of its last step, by an error that the user can mend: its next part needs only its workdir.
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "12")
    (tmp_path / "run" / "run.json").unlink()
    shutil.rmtree(tmp_path / "gone")
    again = finetune(tmp_path / "gone", tmp_path / "run")
    assert again.code == 0, again.err
    assert "from step" in again.out
    assert_learned(tmp_path / "run", "erf", 1e-12)
    assert evaluate(str(tmp_path / "run"), str(folder), "test", bootstrap=0)["top1"] == 1.0
    (asked,) = classify(str(tmp_path / "run"), [str(folder / "test" / "dark" / "0.jpg")])
    assert asked.classes[0][0] == "dark"


def test_a_checkpoint_whose_patch_does_not_divide_the_recipes_size_is_trained_and_scored_at_one_that_does(
    program, finetune, folder, tmp_path
):
    np.savez(tmp_path / "five.npz", **numpy_vit.draw_params(patch=(5, 5), grid=(3, 3), d=12, heads=2))
    words = [f"--config=configs/finetune.py:dataset={folder},smoke", f"--config.init={tmp_path / 'five.npz'}"]
    done = program.execute(["-m", "vit_jax.main", *words, f"--workdir={tmp_path / 'run'}"]).finish()
    assert done.code == 0, done.err
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["data"]["resolution"] == saved["evals"]["test"]["resolution"] == [45, 45]  # of 48
    by_hand = finetune(tmp_path / "five.npz", tmp_path / "other", refused=True)  # 24 x 24
    assert by_hand.code == 2
    assert "takes 20x20; set that, or leave it out" in by_hand.err
    assert not (tmp_path / "other").exists()


def test_a_kept_head_must_have_the_datas_classes(finetune, tmp_path):
    done = finetune(GOLDEN / "hf_classifier", tmp_path / "run", "--config.init.head=keep", refused=True)
    assert done.code == 2
    assert "keeps a head of 7 classes" in done.err
    assert not (tmp_path / "run").exists()


def test_a_head_that_was_never_trained_is_not_scored(folder, tmp_path):
    with np.load(npz_of(tmp_path)) as stored:
        tensors = {name: np.zeros_like(x) if name == "head/kernel" else x for name, x in stored.items()}
    np.savez(tmp_path / "zero.npz", **tensors)
    shutil.copy(tmp_path / "released.json", tmp_path / "zero.json")
    with pytest.raises(UserError, match="all zeros: it was never trained"):
        evaluate(str(tmp_path / "zero.npz"), str(folder), "test")
