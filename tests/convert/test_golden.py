"""Checkpoints as other libraries saved them give the answers that those libraries gave; tests/golden/make.py made them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.convert.load import load
from vit_jax.train.masking import PatchGrid
from vit_jax.train.objectives import masked_autoencoding, simmim
from vit_jax.types import Batch, Outputs

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
WHAT = {"hf_encoder": "pre_logits", "hf_masked": "tokens"}
MASKED = {"hf_masked_gray": ("hidden", "pixels"), "hf_mae": ("noise", "patches")}  # argument, answer in `extra`


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(p.name for p in GOLDEN.iterdir() if (p / "answer.npz").exists()))
def test_answers_equal_the_sources_own(name):
    argument, what = MASKED.get(name, ("", ""))
    with np.load(GOLDEN / name / "answer.npz") as kept:
        images, expected = kept["images"], kept["answer"]
        drawn = {argument: kept[argument]} if argument else {}
    loaded = load(str(GOLDEN / name))
    outputs = jax.jit(loaded.module.apply)({"params": loaded.params}, images, **drawn)
    found = np.asarray(outputs.extra[what] if what else getattr(outputs, WHAT.get(name, "logits")))
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_eight_libraries_models_are_kept():
    assert len([p for p in GOLDEN.iterdir() if (p / "answer.npz").exists()]) == 8


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("hf_masked_gray", simmim(grid=PatchGrid((2, 2), (8, 8)), mask_patch=(8, 8))),
        ("hf_mae", masked_autoencoding(grid=PatchGrid((2, 8), (4, 4)))),
    ],
)
def test_losses_equal_the_sources_own(name, objective):
    argument, what = MASKED[name]
    with np.load(GOLDEN / name / "answer.npz") as kept:
        images, drawn, loss, answer = kept["images"], kept[argument], kept["loss"], jnp.asarray(kept["answer"])
    hidden = jnp.asarray(drawn if argument == "hidden" else np.argsort(np.argsort(drawn, axis=1), axis=1) >= 4)
    outputs = Outputs(None, None, None, None, extra={what: answer, "hidden": hidden})
    found = objective.values(outputs, Batch(jnp.asarray((images + 1) * 127.5), None, None))["loss"].mean()
    assert float(found) == pytest.approx(float(loss), rel=1e-5)
