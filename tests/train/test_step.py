"""The training step: its arithmetic on a linear model, by hand in numpy, and the same numbers however it is spread."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from vit_jax import partition
from vit_jax.models import build
from vit_jax.models.vit import VisionTransformer
from vit_jax.train.objectives import softmax_cross_entropy
from vit_jax.train.optim import make_optimizer
from vit_jax.train.step import abstract_state, init_state, jit_train_step, make_train_step
from vit_jax.types import Batch, Outputs

PIXELS, CLASSES = 12, 3


def linear(params, images, *, train, rng):
    """Logits are a matrix product with the pixels."""
    x = build.normalize(images).reshape(images.shape[0], -1)
    return Outputs(None, None, None, x @ params["kernel"] + params["bias"][None])


def linear_params():
    rng = np.random.default_rng(0)
    return {"kernel": rng.standard_normal((PIXELS, CLASSES)).astype(np.float32), "bias": np.zeros(CLASSES, np.float32)}


def linear_batch(seed=0, b=16, mask=None):
    rng = np.random.default_rng(seed)
    mask = np.ones(b) if mask is None else mask
    images = rng.integers(0, 256, (b, 2, 2, 3), np.uint8)
    return Batch(images, rng.integers(0, CLASSES, b).astype(np.int32), np.asarray(mask, np.float32))


def by_hand(params, batch, mask=None):
    """Mean loss, accuracy and gradient over the rows that count, in float64."""
    rows = np.asarray(batch.mask if mask is None else mask) > 0
    x = (batch.image[rows].reshape(-1, PIXELS).astype(np.float64) - 127.5) / 127.5
    y = np.eye(CLASSES)[batch.target[rows]]
    logits = x @ params["kernel"].astype(np.float64) + params["bias"]
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    gradient = {"kernel": x.T @ (p - y) / len(x), "bias": (p - y).mean(axis=0)}
    return -np.log((p * y).sum(axis=-1)).mean(), (logits.argmax(-1) == batch.target[rows]).mean(), gradient


def setup(
    forward,
    params,
    *,
    objective=None,
    devices=8,
    fsdp=1,
    accumulation=1,
    average_decay=0.0,
    seed=0,
    **optim,
):
    """(mesh, state, jitted step)."""
    mesh = partition.make_mesh(fsdp, jax.devices()[:devices])
    optimizer, schedule = make_optimizer(**{"total_steps": 10, "name": "sgd", "lr": 0.1, "decay": "constant", **optim})
    step = make_train_step(
        forward=partition.on_mesh(forward, mesh),
        objective=objective or softmax_cross_entropy(),
        optimizer=optimizer,
        schedule=schedule,
        mesh=mesh,
        accumulation=accumulation,
        average_decay=average_decay,
    )
    params = jax.tree.map(jnp.asarray, params)
    state = init_state(params, optimizer, jax.random.key(seed), mesh, average=bool(average_decay))
    return mesh, state, jit_train_step(step, state, mesh)


def assert_params(state, expected, rtol=1e-5):
    for name, value in expected.items():
        np.testing.assert_allclose(np.asarray(state.params[name]), value, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_one_step_and_its_metrics_by_hand(accumulation):
    params, batch = linear_params(), linear_batch()
    mesh, state, step = setup(linear, params, accumulation=accumulation)
    state, metrics = step(state, partition.put_batch(batch, mesh))
    loss, accuracy, gradient = by_hand(params, batch)
    norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
    assert set(metrics) == {"loss", "accuracy", "grad_norm", "lr"}
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(metrics["accuracy"]) == pytest.approx(accuracy)
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-5)
    assert float(metrics["lr"]) == pytest.approx(0.1)
    assert_params(state, {name: params[name] - 0.1 * gradient[name] for name in params})
    assert int(state.step) == 1


@pytest.mark.parametrize("accumulation", [1, 2])
def test_masked_rows_do_not_count(accumulation):
    # 16 rows over 8 devices, and micro-batches that hold unequal numbers of real rows.
    mask = np.array([1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 0, 0, 0])
    params, batch = linear_params(), linear_batch(mask=mask)
    loss, accuracy, gradient = by_hand(params, batch)
    mesh, state, step = setup(linear, params, accumulation=accumulation)
    state, metrics = step(state, partition.put_batch(batch, mesh))
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(metrics["accuracy"]) == pytest.approx(accuracy)
    assert_params(state, {name: params[name] - 0.1 * gradient[name] for name in params})


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_loss_is_the_mean_by_the_objectives_weights(accumulation):
    mask = np.array([1, 0, 1, 1] * 4)
    params, batch = linear_params(), linear_batch(mask=mask)
    objective = dataclasses.replace(
        softmax_cross_entropy(), weight=lambda batch: batch.mask * (1 + batch.target.astype(jnp.float32))
    )
    mesh, state, step = setup(linear, params, objective=objective, accumulation=accumulation)
    _, metrics = step(state, partition.put_batch(batch, mesh))
    weights = mask * (1 + batch.target)
    losses = [by_hand(params, batch, np.arange(16) == row)[0] for row in range(16)]
    assert float(metrics["loss"]) == pytest.approx(np.average(losses, weights=weights), rel=1e-5)
    assert weights.sum() > 16  # the weights are no mask


def test_a_batch_without_a_real_row_changes_nothing():
    params = linear_params()
    mesh, state, step = setup(linear, params)
    state, metrics = step(state, partition.put_batch(linear_batch(mask=np.zeros(16)), mesh))
    assert float(metrics["loss"]) == 0
    assert_params(state, params, rtol=0)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_clipping_sees_the_mean_gradient_of_the_whole_batch(accumulation):
    params, batch = linear_params(), linear_batch(b=32)
    _, _, gradient = by_hand(params, batch)
    norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
    mesh, state, step = setup(linear, params, accumulation=accumulation, clip_norm=norm / 3)
    state, metrics = step(state, partition.put_batch(batch, mesh))
    assert_params(state, {name: params[name] - 0.1 * gradient[name] / 3 for name in params})
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-5)  # before clipping


def test_the_average_is_polyaks():
    params = linear_params()
    mesh, state, step = setup(linear, params, average_decay=0.75)
    average = {name: value.astype(np.float64) for name, value in params.items()}
    for seed in range(3):
        state, _ = step(state, partition.put_batch(linear_batch(seed), mesh))
        average = {name: 0.75 * average[name] + 0.25 * np.asarray(state.params[name], np.float64) for name in params}
    for name in params:
        np.testing.assert_allclose(state.average[name], average[name], rtol=1e-5, atol=1e-6)
        assert np.abs(state.average[name] - state.params[name]).max() > 1e-3


def test_the_schedule_counts_optimizer_steps_whatever_the_accumulation():
    # Warm-up of 4 to a rate of 0.8; linear from there to 0 at step 8. The first update has rate 0.
    expected = [0.0, 0.2, 0.4, 0.6, 0.8, 0.6]
    for accumulation in (1, 2):
        params = linear_params()
        schedule = {"lr": 0.8, "warmup": 4, "total_steps": 8, "decay": "linear", "end_lr": 0.0}
        mesh, state, step = setup(linear, params, accumulation=accumulation, momentum=0.0, **schedule)
        for seed, rate in enumerate(expected):
            before = {name: np.asarray(state.params[name]) for name in params}
            batch = linear_batch(seed)
            _, _, gradient = by_hand(before, batch)
            state, metrics = step(state, partition.put_batch(batch, mesh))
            assert float(metrics["lr"]) == pytest.approx(rate, abs=1e-7)
            assert_params(state, {name: before[name] - rate * gradient[name] for name in params})


def test_the_dropout_key_is_folded_with_the_step_and_the_micro_batch():
    def draw(params, images, *, train, rng):
        logits = jax.random.normal(rng, (images.shape[0], CLASSES)) + 0 * params["bias"][None]
        return Outputs(None, None, None, logits)

    mesh, state, step = setup(draw, linear_params(), devices=1, accumulation=2, seed=7)
    batch = linear_batch(b=4)
    found = []
    for _ in range(2):
        state, metrics = step(state, partition.put_batch(batch, mesh))
        found.append(float(metrics["loss"]))
    expected = []
    for t in range(2):
        losses = []
        for i in range(2):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(7), t), i)
            logits = np.asarray(jax.random.normal(key, (2, CLASSES)), np.float64)
            log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            losses += [-log_p[row, label] for row, label in enumerate(batch.target[i::2])]  # row r is in part r % 2
        expected.append(np.mean(losses))
    assert found == pytest.approx(expected, rel=1e-5)
    assert found[0] != found[1]
    assert np.array_equal(jax.random.key_data(state.rng), jax.random.key_data(jax.random.key(7)))


@pytest.mark.slow
def test_the_callers_key_survives_the_steps_that_reuse_the_states_memory():
    key = jax.random.key(3)
    mesh = partition.make_mesh(devices=jax.devices()[:1])
    optimizer, schedule = make_optimizer(total_steps=10, name="sgd", lr=0.1, decay="constant")
    state = init_state(linear_params(), optimizer, key, mesh, average=False)
    step = make_train_step(
        forward=linear, objective=softmax_cross_entropy(), optimizer=optimizer, schedule=schedule, mesh=mesh
    )
    state, _ = jit_train_step(step, state, mesh)(state, partition.put_batch(linear_batch(), mesh))
    assert np.asarray(jax.random.key_data(key)).tolist() == [0, 3]
    assert np.asarray(jax.random.key_data(state.rng)).tolist() == [0, 3]


# The same numbers, on a real model

SPREADS = {
    "8 devices": {"devices": 8},
    "fsdp 8": {"devices": 8, "fsdp": 8},
    "data 2 x fsdp 4": {"devices": 8, "fsdp": 4},
    "accumulation 4": {"devices": 1, "accumulation": 4},
}
OPTIMIZERS = {
    "adam": {"lr": 3e-4, "weight_decay": 0.1, "clip_norm": 1.0, "decay": "linear", "warmup": 1},
    "sgd": {"lr": 0.02, "clip_norm": 1.0, "decay": "cosine", "warmup": 1},
}
VIT = VisionTransformer(CLASSES, (4, 4), 64, 1, 256, 2)
# Attention does not see a shift that all keys share, so the gradient of this bias is zero but for rounding; Adam, which
# divides it by its own size, then moves it at random. It is left out below.
SHIFT = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/key/bias"


@functools.cache
def vit_params():
    """Initial parameters, with vectors that are not all zero: relative to zero every error is large."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: x + rng.normal(0, 0.02, x.shape).astype(np.float32) if x.ndim < 3 else np.asarray(x),
        jax.tree.map(np.asarray, build.init_params(VIT, jax.random.key(0), (8, 8))),
    )


def vit_batch(seed):
    rng = np.random.default_rng(100 + seed)
    images = rng.integers(0, 256, (32, 8, 8, 3), np.uint8)
    return Batch(images, rng.integers(0, CLASSES, 32).astype(np.int32), np.ones(32, np.float32))


def five_steps(name, **spread):
    """{name: array} after five steps."""
    mesh, state, step = setup(build.make_forward(VIT), vit_params(), name=name, **{**OPTIMIZERS[name], **spread})
    # LLVM's optimizations, left out here, are half of the time to compile; whatever spreads the work comes before them.
    step = step.lower(state, partition.put_batch(vit_batch(0), mesh)).compile({"xla_backend_optimization_level": 0})
    for seed in range(5):
        state, _ = step(state, partition.put_batch(vit_batch(seed), mesh))
    return traverse_util.flatten_dict(jax.tree.map(np.asarray, state.params), sep="/")


@pytest.fixture(scope="module", params=list(OPTIMIZERS))
def one_device(request):
    return request.param, five_steps(request.param, devices=1)


@pytest.mark.slow
@pytest.mark.parametrize("spread", SPREADS)
def test_five_steps_are_the_same_numbers_however_they_are_spread(one_device, spread):
    name, expected = one_device
    found = five_steps(name, **SPREADS[spread])
    start = traverse_util.flatten_dict(vit_params(), sep="/")
    for key, right in expected.items():
        if key != SHIFT:
            error, moved = np.linalg.norm(found[key] - right), np.linalg.norm(right - start[key])
            assert error < 1e-5 * np.linalg.norm(right), key
            assert error < 1e-4 * moved, key


def shard_sizes(tree):
    return {
        "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path): {
            s.data.size / x.size for s in x.addressable_shards
        }
        for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_fsdp_splits_parameters_optimizer_state_and_average(name):
    spread = {"devices": 8, "fsdp": 4, "average_decay": 0.9}
    _, state, _ = setup(build.make_forward(VIT), vit_params(), name=name, **spread, **OPTIMIZERS[name])
    kernels = [f"Transformer/encoderblock_0/MlpBlock_3/Dense_{i}/kernel" for i in (0, 1)]  # 64 x 256 = 2^14 elements
    for tree, moments in ((state.params, 1), (state.average, 1), (state.opt_state, 2 if name == "adam" else 1)):
        sizes = shard_sizes(tree)
        for kernel in kernels:
            found = [share for key, share in sizes.items() if key.endswith(kernel)]
            assert found == [{0.25}] * moments
        small = [share for key, share in sizes.items() if key.endswith("query/kernel")]
        assert small == [{1.0}] * moments


@pytest.mark.parametrize("fsdp", [1, 4])
def test_the_abstract_state_is_the_state_without_the_arrays(fsdp):
    mesh = partition.make_mesh(fsdp)
    optimizer, _ = make_optimizer(total_steps=10, name="adam", lr=0.1, decay="constant", weight_decay=0.1)
    rng = jax.random.key(0)
    shapes = build.abstract_params(VIT, (8, 8))
    abstract = abstract_state(shapes, optimizer, rng, mesh, average=True)
    state = init_state(vit_params(), optimizer, rng, mesh, average=True)
    assert jax.tree.structure(abstract) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(abstract), jax.tree.leaves(state), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert a.sharding.is_equivalent_to(b.sharding, a.ndim)
    assert state.step.dtype == jnp.int32
    assert int(state.step) == 0
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(state.average), strict=True):
        assert np.array_equal(a, b)
        assert a.sharding.is_equivalent_to(b.sharding, a.ndim)
        assert {s.data.unsafe_buffer_pointer() for s in a.addressable_shards}.isdisjoint(
            s.data.unsafe_buffer_pointer() for s in b.addressable_shards
        )
