"""Schedules and optimizers against their formulas, written out in numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vit_jax.train.optim import is_kernel, make_optimizer, make_schedule
from vit_jax.types import UserError

# Schedules


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        # Rate at steps 0, 5, 10, 40, 70, 100 and 120 of a run of 110 with 10 of warm-up and a peak of 0.002.
        ("cosine", [0, 0.001, 0.002, 0.002 * 0.793892626, 0.001 * (1 + math.cos(0.6 * math.pi)), 4.894348e-5, 0]),
        ("linear", [0, 0.001, 0.002, 1e-5 + 0.00199 * 0.7, 1e-5 + 0.00199 * 0.4, 1e-5 + 0.00199 * 0.1, 1e-5]),
        ("constant", [0, 0.001, 0.002, 0.002, 0.002, 0.002, 0.002]),
        # A tenth after 33, 66 and 99 steps each.
        ("staircase", [0, 0.001, 0.002, 0.0002, 0.00002, 0.000002, 0.000002]),
    ],
)
def test_the_rate_at_seven_steps_by_hand(decay, expected):
    schedule = make_schedule(lr=0.002, total_steps=110, decay=decay, warmup=10)
    found = [float(schedule(jnp.asarray(step))) for step in (0, 5, 10, 40, 70, 100, 120)]
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-10)
    assert schedule(jnp.asarray(3)).dtype == jnp.float32


def test_a_staircase_may_have_other_stairs():
    # SimMIM's: a tenth after 700 of 800 epochs, here of 3 steps each.
    schedule = make_schedule(lr=1.0, total_steps=2400, decay="staircase", warmup=0, stairs=(0.875,))
    found = [float(schedule(jnp.int32(step))) for step in (0, 2100, 2101, 2400)]
    assert found == pytest.approx([1, 1, 0.1, 0.1])


def test_the_staircase_drops_after_300_600_and_900_of_1000_steps():
    # VTAB's own script: TensorFlow's piecewise_constant keeps its value up to and at each boundary.
    schedule = make_schedule(lr=1.0, total_steps=1000, decay="staircase", warmup=0)
    found = [float(schedule(jnp.asarray(step))) for step in (300, 301, 600, 601, 900, 901)]
    assert found == pytest.approx([1, 0.1, 0.1, 0.01, 0.01, 0.001])


@pytest.mark.parametrize(("decay", "end"), [("cosine", 0.0), ("linear", 1e-5), ("constant", 0.5)])
def test_the_rate_starts_at_the_peak_without_warm_up_and_ends_where_it_should(decay, end):
    schedule = make_schedule(lr=0.5, total_steps=20, decay=decay, warmup=0)
    assert float(schedule(jnp.asarray(0))) == 0.5
    assert float(schedule(jnp.asarray(20))) == pytest.approx(end, abs=1e-8)


def test_the_end_of_a_linear_decay_can_be_set():
    schedule = make_schedule(lr=1.0, total_steps=10, decay="linear", warmup=0, end_lr=0.25)
    assert [float(schedule(jnp.asarray(t))) for t in (0, 5, 10)] == pytest.approx([1.0, 0.625, 0.25])


def test_a_run_that_is_all_warm_up_has_a_rate():
    schedule = make_schedule(lr=1.0, total_steps=10, decay="cosine", warmup=10)
    assert [float(schedule(jnp.asarray(t))) for t in (0, 5, 9)] == pytest.approx([0, 0.5, 0.9])


def test_a_warm_up_longer_than_the_run_is_an_error():
    with pytest.raises(UserError, match="warmup is 11 steps, longer than the run of 10"):
        make_schedule(lr=1.0, total_steps=10, decay="cosine", warmup=11)


# Optimizers. A tree with everything that weight decay must leave alone, and the one leaf that it shrinks.

NAMES = ("cls", "pos_embedding", "LayerNorm_0/scale", "LayerNorm_0/bias", "Dense_0/kernel", "Dense_0/bias")


def tree(flat):
    nest = {}
    for name, value in flat.items():
        *parents, leaf = name.split("/")
        inner = nest
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[leaf] = jnp.asarray(value, jnp.float32)
    return nest


def flat(nest):
    return {name: np.asarray(_at(nest, name), np.float64) for name in NAMES}


def _at(nest, name):
    for key in name.split("/"):
        nest = nest[key]
    return nest


def start():
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((2, 3)).astype(np.float32).astype(np.float64) for name in NAMES}


def gradients(step):
    rng = np.random.default_rng(step + 1)
    return {name: rng.standard_normal((2, 3)).astype(np.float32).astype(np.float64) for name in NAMES}


def train(steps=3, **options):
    """Parameters after each step, and the last state."""
    optimizer, _ = make_optimizer(**{"total_steps": 8, "decay": "linear", "lr": 0.1, "end_lr": 0.0, **options})
    params = tree(start())
    state = optimizer.init(params)
    history = []
    for step in range(steps):
        updates, state = optimizer.update(tree(gradients(step)), state, params)
        params = optax.apply_updates(params, updates)
        history.append(flat(params))
    return history, state


def rate(step):
    return 0.1 * (1 - step / 8)


def assert_equal(history, expected):
    for found, right in zip(history, expected, strict=True):
        for name in NAMES:
            np.testing.assert_allclose(found[name], right[name], rtol=2e-5, atol=1e-6, err_msg=name)


def clipped(g, largest):
    norm = math.sqrt(sum((v**2).sum() for v in g.values()))
    return {name: v * min(1, largest / norm) for name, v in g.items()} if largest else g


@pytest.mark.slow
@pytest.mark.parametrize("clip_norm", [0.0, 0.5, 100.0])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("options", [{}, {"eps": 0.25}])
def test_adam_with_decoupled_decay_on_kernels_only(options, weight_decay, clip_norm):
    w, m, v = start(), dict.fromkeys(NAMES, 0.0), dict.fromkeys(NAMES, 0.0)
    expected = []
    for t in range(3):
        g = clipped(gradients(t), clip_norm)
        for name in NAMES:
            m[name] = 0.8 * m[name] + 0.2 * g[name]
            v[name] = 0.95 * v[name] + 0.05 * g[name] ** 2
            u = (m[name] / (1 - 0.8 ** (t + 1))) / (np.sqrt(v[name] / (1 - 0.95 ** (t + 1))) + options.get("eps", 1e-8))
            if name == "Dense_0/kernel":
                u = u + weight_decay * w[name]
            w[name] = w[name] - rate(t) * u
        expected.append(dict(w))
    history, _ = train(name="adam", b1=0.8, b2=0.95, weight_decay=weight_decay, clip_norm=clip_norm, **options)
    assert_equal(history, expected)


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_sgd_with_momentum_that_is_not_nesterovs(weight_decay, clip_norm):
    w, m = start(), dict.fromkeys(NAMES, 0.0)
    expected = []
    for t in range(3):
        g = clipped(gradients(t), clip_norm)
        for name in NAMES:
            m[name] = 0.7 * m[name] + g[name]
            decay = weight_decay * w[name] if name == "Dense_0/kernel" else 0.0
            w[name] = w[name] - rate(t) * (m[name] + decay)
        expected.append(dict(w))
    history, _ = train(name="sgd", momentum=0.7, weight_decay=weight_decay, clip_norm=clip_norm)
    assert_equal(history, expected)


def test_the_defaults_are_the_papers():
    adam, _ = train(name="adam")
    assert_equal(adam, train(name="adam", b1=0.9, b2=0.999)[0])
    sgd, _ = train(name="sgd")
    assert_equal(sgd, train(name="sgd", momentum=0.9)[0])
    # By hand: the first step of Adam is lr * sign(g), of SGD lr * g, whatever the decay rates.
    for name in NAMES:
        np.testing.assert_allclose(start()[name] - adam[0][name], 0.1 * np.sign(gradients(0)[name]), atol=1e-5)
        np.testing.assert_allclose(start()[name] - sgd[0][name], 0.1 * gradients(0)[name], atol=1e-5)


def test_the_paper_s_decay_shrinks_a_kernel_by_rate_times_decay():
    # lr 1e-3 and decay 0.1: 1e-4 a step, with no gradient at all.
    optimizer, _ = make_optimizer(total_steps=10, name="adam", lr=1e-3, decay="constant", weight_decay=0.1)
    params = tree(start())
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    found = flat(updates)
    np.testing.assert_allclose(found["Dense_0/kernel"], -1e-4 * start()["Dense_0/kernel"], rtol=1e-5)
    assert all(not found[name].any() for name in NAMES if name != "Dense_0/kernel")


def test_with_warm_up_the_first_update_is_zero():
    history, _ = train(name="sgd", warmup=2)
    assert_equal(history[:1], [start()])
    assert np.abs(history[1]["cls"] - start()["cls"]).max() > 1e-3


def test_kernels_are_found_by_name():
    assert is_kernel(tree(start())) == {
        "cls": False,
        "pos_embedding": False,
        "LayerNorm_0": {"scale": False, "bias": False},
        "Dense_0": {"kernel": True, "bias": False},
    }


@pytest.mark.slow
@pytest.mark.parametrize(("name", "first", "others"), [("adam", "mu", "nu"), ("sgd", "trace", None)])
def test_the_first_moment_may_be_bfloat16_and_the_second_stays_float32(name, first, others):
    with jax.numpy_dtype_promotion("standard"):  # optax adds float32 gradients to its bfloat16 moment
        history, state = train(name=name, state_dtype="bfloat16")
    moments = next(s for s in state if hasattr(s, first))
    assert {x.dtype for x in jax.tree.leaves(getattr(moments, first))} == {jnp.dtype("bfloat16")}
    if others:
        assert {x.dtype for x in jax.tree.leaves(getattr(moments, others))} == {jnp.dtype("float32")}
    full, _ = train(name=name)
    difference = max(np.abs(history[-1][n] - full[-1][n]).max() for n in NAMES)
    assert 1e-6 < difference < 1e-2
