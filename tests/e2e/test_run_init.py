"""From someone else's weights to a fine-tuned model: started by `--config.init=PATH` alone, then scored, asked, converted."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"


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


def call(*command):
    done = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def finetune(folder, init, workdir, *more):
    small = ("--config.data.resolution=24", "--config.data.batch_size=8", "--config.train.duration=12", *more)
    config = f"--config=configs/finetune.py:dataset={folder}"
    return call("-m", "vit_jax.main", config, f"--config.init={init}", *small, f"--workdir={workdir}")


def npz_of(tmp_path):
    """A release-like npz."""
    source = GOLDEN / "timm_token"
    done = call("-m", "vit_jax", "convert", f"--model={source}", f"--to={tmp_path / 'released.npz'}", "--format=npz")
    assert done.returncode == 0, done.stderr
    return tmp_path / "released.npz"


@pytest.mark.parametrize(
    ("form", "gelu", "eps"), [("npz", "erf", 1e-6), ("hf_classifier", "erf", 1e-12), ("timm_average", "erf", 1e-6)]
)
def test_a_folder_of_images_is_learned_from_each_format(folder, tmp_path, form, gelu, eps):
    init = npz_of(tmp_path) if form == "npz" else GOLDEN / form
    done = finetune(folder, init, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["model"]["gelu"], config["model"]["norm_eps"]) == (gelu, eps)
    assert config["model"]["width"] == 24  # the checkpoint's, not B/16's
    report = (tmp_path / "run" / "init_report.txt").read_text()
    assert "resized  Transformer/posembed_input/pos_embedding 4x4 -> 6x6" in report
    assert json.loads((tmp_path / "run" / "run.json").read_text())["scores"]["eval/test/top1"] == 1.0
    scored = call(
        "-m", "vit_jax", "evaluate", f"--model={tmp_path / 'run'}", f"--dataset={folder}", "--split=test", "--json"
    )
    assert json.loads(scored.stdout)["top1"] == 1.0
    image = folder / "test" / "dark" / "0.jpg"
    asked = call("-m", "vit_jax", "predict", f"--model={tmp_path / 'run'}", "--json", image)
    assert json.loads(asked.stdout)["classes"][0][0] == "dark"


def test_a_run_resumes_without_the_checkpoint_it_began_from(folder, tmp_path):
    shutil.copytree(GOLDEN / "hf_classifier", tmp_path / "gone")
    # A run that ends short of its last step, by an error that the user can mend: its next part needs only its workdir.
    first = finetune(folder, tmp_path / "gone", tmp_path / "run")
    assert first.returncode == 0, first.stderr
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "12")
    (tmp_path / "run" / "run.json").unlink()
    shutil.rmtree(tmp_path / "gone")
    again = finetune(folder, tmp_path / "gone", tmp_path / "run")
    assert again.returncode == 0, again.stderr
    assert "from step" in again.stdout
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["model"]["gelu"], config["model"]["norm_eps"]) == ("erf", 1e-12)


def test_a_checkpoint_whose_patch_does_not_divide_the_recipes_size_is_trained_and_scored_at_one_that_does(
    folder, tmp_path
):
    sys.path.insert(0, str(ROOT / "tests"))
    import numpy_vit

    np.savez(tmp_path / "five.npz", **numpy_vit.draw_params(patch=(5, 5), grid=(3, 3), d=12, heads=2))
    config = f"--config=configs/finetune.py:dataset={folder},smoke"
    done = call("-m", "vit_jax.main", config, f"--config.init={tmp_path / 'five.npz'}", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["data"]["resolution"] == saved["evals"]["test"]["resolution"] == [45, 45]  # of 48
    by_hand = finetune(folder, tmp_path / "five.npz", tmp_path / "other")  # 24 x 24
    assert by_hand.returncode == 2
    assert "takes 20x20; set that, or leave it out" in by_hand.stderr
    assert not (tmp_path / "other").exists()


def test_a_kept_head_must_have_the_datas_classes(folder, tmp_path):
    done = finetune(folder, GOLDEN / "hf_classifier", tmp_path / "run", "--config.init.head=keep")
    assert done.returncode == 2
    assert "keeps a head of 7 classes" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_head_that_was_never_trained_is_not_scored(folder, tmp_path):
    with np.load(npz_of(tmp_path)) as stored:
        tensors = {name: np.zeros_like(x) if name == "head/kernel" else x for name, x in stored.items()}
    np.savez(tmp_path / "zero.npz", **tensors)
    shutil.copy(tmp_path / "released.json", tmp_path / "zero.json")
    done = call("-m", "vit_jax", "evaluate", f"--model={tmp_path / 'zero.npz'}", f"--dataset={folder}", "--split=test")
    assert done.returncode == 2
    assert "all zeros: it was never trained" in done.stderr


def test_plan_prices_a_config_without_its_data():
    done = call("-m", "vit_jax", "plan", "--config=configs/pretrain.py:variant=H/14,dataset=imagenet2012", "--json")
    plan = json.loads(done.stdout)
    # H/14 with 1,000 classes (semantics: 632,045,800) and the tanh layer of 1280 x 1280 + 1280.
    assert plan["params"] == 632_045_800 + 1280 * 1281
    assert plan["tokens"] == 257
    # By hand: per layer and token 2 x (4 x 1280^2 + 2 x 1280 x 5120) and 4 x 257 x 1280 for attention; patches; head.
    layers = 32 * 257 * (2 * (4 * 1280**2 + 2 * 1280 * 5120) + 4 * 257 * 1280)
    by_hand = layers + 256 * 2 * 14 * 14 * 3 * 1280 + 2 * 1280**2 + 2 * 1280 * 1000
    assert plan["forward_flops_per_image"] == by_hand
    assert plan["train_flops_per_image"] == pytest.approx(3 * by_hand, rel=0.005)
