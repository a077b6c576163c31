"""The facts of a card: a run's come from its record, a converted checkpoint's from its step and weights."""

import json
import re
from pathlib import Path

import pytest
import yaml
from etils import epath

from vit_jax.cards.card import Score, render
from vit_jax.cards.facts import of_loaded, of_run, scores_of, task_of, usage_for, write_card
from vit_jax.convert.load import load
from vit_jax.models.variants import vit_variant

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CONFIG = {
    "data": {"dataset": "digits", "batch_size": 40, "resolution": [32, 32]},
    "evals": {
        "test": {"name": "classification", "dataset": None, "split": "test"},
        "few": {"name": "fewshot", "dataset": "cifar10", "test_split": "test"},
    },
    "init": {"path": "/home/me/runs/before"},
    "model": {**vit_variant("Ti/16"), "num_classes": 2},
}
SCORES = {
    "eval/test/top1": 0.5,
    "eval/test/top1_low": 0.4,
    "eval/test/num_examples": 8,
    "eval_average/test/top1": 0.75,
    "eval/few/5shot": 0.25,
    "eval/few/5shot_seed0": 0.25,
    "train/loss": 1.0,
}
RECORD = {
    "config": CONFIG,
    "scores": SCORES,
    "data": [{"name": "digits", "class_names": ["a<b", "c"]}],
    "git": {"commit": "abc123", "modified": True},
    "versions": {"jax": "0.10.2"},
    "devices": ["cpu", "cpu"],
    "steps": 1234,
    "num_params": 5_000_000,
    "train_flops_per_image": 1_000_000,
    "seconds": 12.3,
    "preprocessing": {"recipe": "eval"},
}


def test_scores_are_headlines_with_their_data_split_and_weights():
    assert scores_of(CONFIG, SCORES) == [
        Score("digits", "test", "top1", 0.5, "raw"),
        Score("digits", "test", "top1", 0.75, "averaged"),
        Score("cifar10", "test", "5shot (fewshot)", 0.25, "raw"),
    ]


def test_a_runs_card_says_what_its_record_says():
    text = render(of_run("mine", RECORD))
    for said in (
        "Ti/16",
        "5,000,000",
        "32 x 32 pixels",
        "| started from | before |",
        "1,234 of 40",
        "2 x cpu",
        "abc123",
    ):
        assert said in text, said
    assert "a&lt;b, c" in text
    assert "Predictor.load('mine')" in text
    config = json.loads(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1])
    assert config["data"]["dataset"] == "digits"


@pytest.mark.parametrize(("name", "library"), [("hf_classifier", "transformers"), ("timm_token", "timm")])
def test_the_card_of_a_checkpoint_without_a_run_names_its_model_and_claims_no_result(tmp_path, name, library):
    loaded = load(str(GOLDEN / name))
    form = name.partition("_")[0]
    write_card(epath.Path(tmp_path), of_loaded(loaded, "out", form))
    text = (tmp_path / "README.md").read_text()
    header = yaml.safe_load(text.split("---\n")[1])
    assert (header["library_name"], header["license"]) == (library, "unknown")
    assert "model-index" not in header
    assert "## Results" not in text
    assert f"| started from | {name.replace('_', chr(92) + '_')} |" in text


def test_tasks_are_those_of_the_hub():
    assert task_of({"name": "yolos", "num_classes": 3}) == "object-detection"
    assert task_of({"name": "vit", "num_classes": 0}) == "image-feature-extraction"
    assert task_of({"name": "mae"}) == "image-feature-extraction"
    assert task_of({"name": "vit", "num_classes": 3}) == "image-classification"


def test_a_model_that_a_library_cannot_hold_is_refused_there():
    settings = {**vit_variant("Ti/16"), "num_classes": 2, "registers": 4, "pool": "token", "representation_size": 0}
    listed = {usage.library: usage for usage in usage_for("x", "run", settings, (224, 224))}
    assert "registers is 4" in listed["transformers"].why_not
    assert listed["timm"].why_not == ""
