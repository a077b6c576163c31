"""vit_jax plan: the number of classes is the data's where the data is there, and it is said where it was assumed."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vit_jax.bench.plan import plan

ROOT = Path(__file__).resolve().parents[2]


def params_of(classes):
    """Of Ti/16 at 224 pixels: 5,717,416 with 1,000 classes, as published."""
    return 5_717_416 + (classes - 1000) * 193


def test_a_folders_classes_are_counted(tmp_path):
    for split in ("train", "test"):
        for name in ("ant", "bee", "cow"):
            (tmp_path / split / name).mkdir(parents=True)
            PIL.Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / split / name / "0.png")
    elsewhere = [("train.fsdp", "64")]  # for devices that are not here
    found = plan(f"{ROOT}/configs/finetune.py:variant=Ti/16,dataset={tmp_path}", elsewhere)
    assert (found["num_classes"], found["classes_from"], found["params"]) == (3, str(tmp_path), params_of(3))


@pytest.mark.slow
def test_without_the_data_a_thousand_are_assumed_and_it_is_said_why(tmp_path):
    words = [("data.data_dir", str(tmp_path)), ("data.resolution", "(224, 224)")]
    found = plan(f"{ROOT}/configs/finetune.py:variant=Ti/16,dataset=cifar10", words)
    assert (found["num_classes"], found["params"]) == (1000, params_of(1000))
    assert found["classes_from"].startswith("assumed (cifar10 is not prepared")
    found = plan(f"{ROOT}/configs/finetune.py:variant=Ti/16,dataset=cifar10", [*words, ("model.num_classes", "10")])
    assert (found["classes_from"], found["params"]) == ("the config", params_of(10))
