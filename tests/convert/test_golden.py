"""Checkpoints as other libraries saved them give the answers that those libraries gave; tests/golden/make.py made them."""

from pathlib import Path

import jax
import numpy as np
import pytest

from vit_jax.convert.load import load

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
WHAT = {"hf_encoder": "pre_logits", "hf_masked": "tokens"}


@pytest.mark.parametrize("name", sorted(p.name for p in GOLDEN.iterdir() if (p / "answer.npz").exists()))
def test_answers_equal_the_sources_own(name):
    with np.load(GOLDEN / name / "answer.npz") as kept:
        images, expected = kept["images"], kept["answer"]
    loaded = load(str(GOLDEN / name))
    outputs = jax.jit(loaded.module.apply)({"params": loaded.params}, images)
    found = np.asarray(getattr(outputs, WHAT.get(name, "logits")))
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_six_libraries_models_are_kept():
    assert len([p for p in GOLDEN.iterdir() if (p / "answer.npz").exists()]) == 6
