"""Mixup and CutMix against the mixture written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.train import mixing
from vit_jax.train.objectives import OBJECTIVES
from vit_jax.types import Batch, Outputs, UserError


def images(b=4, h=12, w=10):
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (b, h, w, 3)).astype(np.float32))


def batch(label=(0, 1, 2, 1)):
    return Batch(images().astype(jnp.uint8), jnp.asarray(label, jnp.int32), jnp.ones(4, jnp.float32))


@pytest.mark.slow
def test_mixup_adds_the_rolled_batch_by_at_most_a_half():
    x, shares = images(), []
    for seed in range(50):
        mixed = mixing.mixup(x, jax.random.key(seed), 0.5)
        a = float(mixed.share)
        np.testing.assert_allclose(mixed.image, a * np.asarray(x) + (1 - a) * np.roll(x, 1, axis=0), atol=1e-3)
        shares.append(a)
    assert min(shares) >= 0.5
    # E max(B, 1-B) for Beta(1/2, 1/2) is 1/2 + 1/pi.
    assert np.mean(shares) == pytest.approx(0.5 + 1 / np.pi, abs=0.06)


@pytest.mark.slow
def test_cutmix_takes_one_box_from_the_rolled_batch_and_counts_its_area():
    x = np.asarray(images())
    areas = []
    for seed in range(40):
        mixed = mixing.cutmix(images(), jax.random.key(seed), 1.0)
        foreign = (np.asarray(mixed.image) != x).any(axis=(0, 3))
        assert np.array_equal(mixed.image[:, foreign], np.roll(x, 1, axis=0)[:, foreign])
        ys, xs = np.where(foreign)
        if len(ys):
            assert foreign[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].all()
        assert float(mixed.share) == pytest.approx(1 - foreign.mean(), abs=1e-6)
        areas.append(foreign.mean())
    assert 0.1 < np.mean(areas) < 0.6


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_mixture_of_losses_is_the_loss_of_the_mixed_target(name, smoothing):
    logits = np.random.default_rng(1).normal(size=(4, 3))
    target = np.eye(3)[[0, 1, 2, 1]] * 0.7 + np.eye(3)[[1, 0, 1, 2]] * 0.3  # own, and the one before
    target = target * (1 - smoothing) + smoothing / 3
    if name == "softmax":
        expected = -(target * (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))).sum(axis=1)
    else:
        p = 1 / (1 + np.exp(-logits))
        expected = -(target * np.log(p) + (1 - target) * np.log(1 - p)).sum(axis=1)
    outputs = Outputs(None, None, None, jnp.asarray(logits, jnp.float32))
    objective = OBJECTIVES[name](label_smoothing=smoothing)
    assert objective.linear
    found = mixing.mixed_values(objective.values, outputs, batch(), jnp.float32(0.7))["loss"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_both_take_turns_and_neither_is_none():
    assert mixing.make_mix(0.0, 0.0) is None
    mix = jax.jit(mixing.make_mix(0.4, 1.0))
    x = np.asarray(images())
    kinds = set()
    for seed in range(20):
        changed = (np.asarray(mix(batch(), jax.random.key(seed)).image) != x).any(axis=(0, 3))
        kinds.add("all" if changed.all() else "some")
    assert kinds == {"all", "some"}
    with pytest.raises(UserError, match="expected 0"):
        mixing.make_mix(-0.1, 0.0)
