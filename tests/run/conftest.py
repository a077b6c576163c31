"""Digits prepared once, and runs on them that are ready to start."""

import pytest

from vit_jax import config as configs
from vit_jax.data.prepare.prepare import prepare
from vit_jax.run.job import build_job


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A data folder with digits in it."""
    folder = tmp_path_factory.mktemp("tfds")
    prepare("digits", data_dir=str(folder))
    return str(folder)


@pytest.fixture(scope="session")
def made(digits):
    """Builds a run of 10 steps an epoch with overrides, `train__duration="3 epochs"`."""

    def build(**overrides):
        pairs = {"data.data_dir": digits, "data.split": "train[:720]", "data.batch_size": "72", "model.depth": "1"}
        pairs |= {key.replace("__", "."): value for key, value in overrides.items()}
        return build_job(configs.load("configs/quickstart.py:pretrain,smoke"), list(pairs.items()))

    return build
