"""The masked objectives against numpy, and their training: the same numbers however it is spread, cut or stopped."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from tiny import QUICK

from vit_jax import partition
from vit_jax.models import build
from vit_jax.models.masked import MaskedAutoencoder, MaskedViT
from vit_jax.train.masking import PatchGrid
from vit_jax.train.objectives import masked_autoencoding, masked_patch_prediction, simmim
from vit_jax.train.optim import make_optimizer
from vit_jax.train.step import init_state, jit_train_step, make_train_step
from vit_jax.types import Batch, Outputs

GRID = PatchGrid((2, 4), (8, 4))  # images of 16 x 16
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 16, 16, 3), np.uint8)
BATCH = Batch(jnp.asarray(IMAGES), None, None)
HIDDEN = np.array([[1, 0, 0, 1, 1, 0, 0, 1], [0, 1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0]], bool)


def scored(objective, **extra):
    outputs = Outputs(None, None, None, None, extra={name: jnp.asarray(x) for name, x in extra.items()})
    return jax.jit(lambda: objective.values(outputs, BATCH))()


def cut(images):
    """(b, n, ph, pw, c) by loops."""
    return np.stack([images[:, y : y + 8, x : x + 4] for y in (0, 8) for x in (0, 4, 8, 12)], axis=1)


def pixel_mask():
    mask = np.zeros((3, 16, 16))
    for row, n in np.argwhere(HIDDEN):
        mask[row, n // 4 * 8 : n // 4 * 8 + 8, n % 4 * 4 : n % 4 * 4 + 4] = 1
    return mask


def test_simmim_is_the_mean_absolute_error_of_hidden_pixels_as_transformers_has_it():
    x, guess = IMAGES / 127.5 - 1, RNG.standard_normal((3, 16, 16, 3)).astype(np.float32)
    found = scored(simmim(grid=GRID, mask_patch=(8, 4)), pixels=guess, hidden=HIDDEN)
    mask = pixel_mask()[..., None]
    expected = (np.abs(x - guess) * mask).sum(axis=(1, 2, 3)) / (mask.sum(axis=(1, 2, 3)) + 1e-5) / 3
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)
    for row in range(3):
        seen = mask[row, ..., 0] == 0
        error = np.abs(x[row][~seen] - x[row][seen].mean(axis=0)).mean()
        assert float(found["baseline"][row]) == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize("norm_pix", [True, False])
def test_mae_is_the_squared_error_of_hidden_patches(norm_pix):
    guess = RNG.standard_normal((3, 8, 96)).astype(np.float32)
    found = scored(masked_autoencoding(grid=GRID, norm_pix=norm_pix), patches=guess, hidden=HIDDEN)
    target = cut(IMAGES / 127.5 - 1).reshape(3, 8, 96)  # in the order row, column, channel
    if norm_pix:
        target = (target - target.mean(-1, keepdims=True)) / np.sqrt(target.var(-1, ddof=1, keepdims=True) + 1e-6)
    error = ((guess - target) ** 2).mean(axis=-1)
    np.testing.assert_allclose(found["loss"], (error * HIDDEN).sum(axis=1) / HIDDEN.sum(axis=1), rtol=1e-5)
    if norm_pix:
        np.testing.assert_allclose(found["baseline"], 95 / 96, rtol=1e-4)


def test_mean_colours_are_a_cross_entropy_over_512_classes():
    logits = RNG.standard_normal((3, 8, 512)).astype(np.float32)
    found = scored(masked_patch_prediction(grid=GRID), mean_colour=logits, corrupted=HIDDEN)
    classes = np.floor(cut(IMAGES).mean(axis=(2, 3)) / 32).astype(int) @ [64, 8, 1]
    wide = logits.astype(np.float64)
    loss = np.log(np.exp(wide).sum(-1)) - np.take_along_axis(wide, classes[..., None], -1)[..., 0]
    np.testing.assert_allclose(found["loss"], (loss * HIDDEN).sum(1) / HIDDEN.sum(1), rtol=1e-5)
    hits = wide.argmax(-1) == classes
    np.testing.assert_allclose(found["accuracy"], (hits * HIDDEN).sum(1) / HIDDEN.sum(1), rtol=1e-6)


@pytest.mark.slow
def test_sixteen_colours_a_patch_are_sixteen_predictions():
    logits = RNG.standard_normal((3, 8, 16, 512)).astype(np.float32)
    found = scored(masked_patch_prediction(grid=GRID, target="patch_4x4"), patch_4x4=logits, corrupted=HIDDEN)
    means = cut(IMAGES).reshape(3, 8, 4, 2, 4, 1, 3).mean(axis=(3, 5)).reshape(3, 8, 16, 3)
    classes = np.floor(means / 32).astype(int) @ [64, 8, 1]
    wide = logits.astype(np.float64)
    loss = (np.log(np.exp(wide).sum(-1)) - np.take_along_axis(wide, classes[..., None], -1)[..., 0]).mean(-1)
    np.testing.assert_allclose(found["loss"], (loss * HIDDEN).sum(1) / HIDDEN.sum(1), rtol=1e-5)


def test_pixels_are_regressed_by_their_mean_square():
    guess = RNG.standard_normal((3, 16, 16, 3)).astype(np.float32)
    found = scored(masked_patch_prediction(grid=GRID, target="pixels"), pixels=guess, corrupted=HIDDEN)
    error = ((guess - (IMAGES / 127.5 - 1)) ** 2).mean(axis=-1) * pixel_mask()
    np.testing.assert_allclose(found["loss"], error.sum(axis=(1, 2)) / pixel_mask().sum(axis=(1, 2)), rtol=1e-5)


def test_colours_are_counted_over_all_patches():
    counts = masked_patch_prediction(grid=GRID).counts(BATCH)
    classes = np.floor(cut(IMAGES).mean(axis=(2, 3)) / 32).astype(int) @ [64, 8, 1]
    np.testing.assert_array_equal(counts, [np.bincount(row, minlength=512) for row in classes])
    assert masked_patch_prediction(grid=GRID, target="pixels").counts is None


# Training

SIZES = {"patch_size": (8, 4), "width": 16, "depth": 1, "mlp_dim": 32, "num_heads": 2}
TASKS = {
    "simmim": (lambda: simmim(grid=GRID, mask_patch=(8, 4)), MaskedViT(**SIZES)),
    "mae": (
        lambda: masked_autoencoding(grid=GRID),
        MaskedAutoencoder(**SIZES, decoder_width=16, decoder_depth=1, decoder_heads=2, decoder_mlp_dim=32),
    ),
    "patches": (lambda: masked_patch_prediction(grid=GRID), MaskedViT(**SIZES, decoder="mean_colour")),
}


@functools.cache
def task(name, devices=1, accumulation=1, fsdp=1):
    """(mesh, function that makes the initial state, compiled step)."""
    make, model = TASKS[name]
    mesh = partition.make_mesh(fsdp, jax.devices()[:devices])
    # Adam divides gradients that are rounding by themselves; this epsilon keeps those still, whatever their order of summation.
    optimizer, schedule = make_optimizer(total_steps=9, name="adam", lr=0.01, decay="cosine", b2=0.95, eps=1e-3)
    step = make_train_step(
        forward=partition.on_mesh(build.make_forward(model), mesh),
        objective=make(),
        optimizer=optimizer,
        schedule=schedule,
        mesh=mesh,
        accumulation=accumulation,
    )
    params = build.init_params(model, jax.random.key(0), (16, 16))

    def start():
        return init_state(jax.tree.map(jnp.copy, params), optimizer, jax.random.key(1), mesh, average=False)

    lowered = jit_train_step(step, start(), mesh).lower(start(), batch(0, mesh))
    return mesh, start, lowered.compile(compiler_options=QUICK)


def batch(seed, mesh):
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 256, (32, 4, 4, 3), np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    mask = np.ones(32, np.float32)
    mask[[3, 17]] = 0
    return partition.put_batch(Batch(low, np.zeros(32, np.int32), mask), mesh)


def run(name, steps=(0, 1, 2), state=None, **spread):
    """(losses, state) after some steps."""
    mesh, start, step = task(name, **spread)
    state, losses = start() if state is None else state, []
    for seed in steps:
        state, metrics = step(state, batch(seed, mesh))
        losses.append({key: float(x) for key, x in metrics.items()})
    return losses, state


@functools.cache
def alone(name):
    losses, state = run(name)
    return losses, flat(state)


def flat(state):
    return {k: np.asarray(x) for k, x in traverse_util.flatten_dict(state.params, sep="/").items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("spread", [{"devices": 8}, {"devices": 8, "fsdp": 4}, {"accumulation": 4}], ids=str)
def test_devices_and_accumulation_change_no_number(name, spread):
    expected, params = alone(name)
    losses, state = run(name, **spread)
    for found, right in zip(losses, expected, strict=True):
        assert found == pytest.approx(right, rel=1e-5)
    for key, x in flat(state).items():
        np.testing.assert_allclose(x, params[key], rtol=1e-5, atol=1e-5, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_a_run_stopped_and_resumed_is_the_same_to_the_bit(name):
    expected, params = alone(name)
    first, state = run(name, steps=(0,))
    # What a checkpoint keeps: arrays, and the key's data.
    saved = jax.tree.map(np.asarray, state._replace(rng=jax.random.key_data(state.rng)))
    fresh = task(name)[1]()
    restored = jax.tree.map(
        lambda x, like: jax.device_put(x, like.sharding), saved._replace(rng=fresh.rng), fresh._replace(rng=fresh.rng)
    )
    rest, state = run(name, steps=(1, 2), state=restored)
    assert first + rest == expected
    for key, x in flat(state).items():
        np.testing.assert_array_equal(x, params[key], err_msg=key)


@pytest.mark.parametrize("name", TASKS)
def test_every_step_draws_another_mask(name):
    mesh, start, step = task(name)
    one = batch(0, mesh)
    first, second = (float(step(start()._replace(step=jnp.int32(t)), one)[1]["loss"]) for t in (0, 1))
    assert first != second


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_what_is_hidden_in_evaluation_depends_on_the_image_alone(name):
    make, model = TASKS[name]
    objective, forward = make(), build.make_forward(model)
    params = build.init_params(model, jax.random.key(0), (16, 16))
    images = jnp.asarray(RNG.integers(0, 256, (4, 16, 16, 3), np.uint8))

    def losses(images):
        return objective.values(objective.run_fixed(forward, params, images), Batch(images, None, None))["loss"]

    losses = jax.jit(losses, compiler_options=QUICK)
    np.testing.assert_allclose(losses(images[::-1])[::-1], losses(images), rtol=1e-6)
