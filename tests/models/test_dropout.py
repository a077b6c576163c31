"""Dropout and stochastic depth: how often, how strongly, where, and independently of what."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from tiny import model_shapes, run

from vit_jax import partition
from vit_jax.models import build
from vit_jax.models.dropout import Dropout, DropPath, keep_mask, mix
from vit_jax.models.vit import VisionTransformer

SHAPE = (64, 48, 40)


def correlation(a, b):
    """Pearson's, of two boolean arrays; of independent ones its deviation is 1 / sqrt(size)."""
    a, b = a.astype(float).ravel(), b.astype(float).ravel()
    return np.mean((a - a.mean()) * (b - b.mean())) / (a.std() * b.std())


def mask_of(seed=0, shape=SHAPE, rate=0.3):
    return np.asarray(keep_mask(jax.random.key(seed), shape, rate))


# The hash


def test_mix_has_the_published_values():
    # lowbias32 of C. Wellons' hash-prospector, evaluated with Python integers.
    def lowbias32(x):
        x = (x ^ (x >> 16)) * 0x7FEB352D % 2**32
        x = (x ^ (x >> 15)) * 0x846CA68B % 2**32
        return x ^ (x >> 16)

    x = np.array([0, 1, 2, 0xDEADBEEF, 2**32 - 1], np.uint32)
    assert np.asarray(mix(jnp.asarray(x))).tolist() == [lowbias32(int(v)) for v in x]


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
def test_the_share_kept_is_one_minus_the_rate(rate):
    mask = mask_of(rate=rate)
    deviation = np.sqrt(rate * (1 - rate) / mask.size)
    assert abs(mask.mean() - (1 - rate)) < 4 * deviation
    for axis in range(3):  # and in every slice of every axis, none of which is an exception
        others = tuple(i for i in range(3) if i != axis)
        worst = np.abs(mask.mean(axis=others) - (1 - rate)).max()
        assert worst < 5 * np.sqrt(rate * (1 - rate) * mask.shape[axis] / mask.size)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("lag", [1, 2, 3, 5, 8, 16, 17, 32])
def test_neighbours_are_uncorrelated(axis, lag):
    mask = mask_of()
    a, b = np.take(mask, np.arange(lag, SHAPE[axis]), axis), np.take(mask, np.arange(SHAPE[axis] - lag), axis)
    assert abs(correlation(a, b)) < 4.5 / np.sqrt(a.size)


def test_keys_that_differ_in_one_bit_give_uncorrelated_masks():
    size = np.prod(SHAPE)
    data = np.array([0x12345678, 0x9ABCDEF0], np.uint32)
    masks = []
    for word, bit in ((0, None), (0, 0), (0, 31), (1, 0), (1, 31)):
        changed = data.copy()
        changed[word] ^= np.uint32(0 if bit is None else 1 << bit)
        masks.append(np.asarray(keep_mask(jax.random.wrap_key_data(jnp.asarray(changed)), SHAPE, 0.5)))
    pairs = [correlation(a, b) for i, a in enumerate(masks) for b in masks[:i]]
    assert len(pairs) == 10
    assert np.abs(pairs).max() < 4.5 / np.sqrt(size)


def test_no_two_rows_share_a_mask():
    mask = mask_of(shape=(16, 64, 64), rate=0.5).reshape(-1, 64)
    assert len(np.unique(mask, axis=0)) == 1024  # a pair of equal rows has probability 2^-44


@pytest.mark.parametrize("shape", [(4096,), (64, 64), (2, 3, 5, 7, 64)])
def test_any_number_of_axes_is_masked(shape):
    mask = mask_of(shape=shape, rate=0.5)
    assert mask.shape == shape
    assert abs(mask.mean() - 0.5) < 4.5 * 0.5 / np.sqrt(mask.size)


# The layer


def test_survivors_are_scaled_to_keep_the_mean():
    out = Dropout(0.25).apply({}, jnp.ones(SHAPE), True, rngs={"dropout": jax.random.key(0)})
    assert np.unique(out).tolist() == [0.0, np.float32(4 / 3)]
    assert float(out.mean()) == pytest.approx(1.0, abs=4 * np.sqrt(1 / 3 / out.size))


def test_bfloat16_stays_bfloat16():
    out = Dropout(0.5).apply({}, jnp.ones((4, 8), jnp.bfloat16), True, rngs={"dropout": jax.random.key(0)})
    assert out.dtype == jnp.bfloat16
    assert set(np.unique(out.astype(jnp.float32)).tolist()) == {0.0, 2.0}


@pytest.mark.parametrize(("rate", "train"), [(0.5, False), (0.0, True)])
def test_without_training_or_rate_it_is_the_identity_and_needs_no_key(rate, train):
    x = jnp.arange(6.0).reshape(2, 3)
    assert np.asarray(Dropout(rate).apply({}, x, train)).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.slow
def test_the_gradient_passes_the_survivors_only():
    def total(x):
        return Dropout(0.5).apply({}, x, True, rngs={"dropout": jax.random.key(0)}).sum()

    x = jnp.ones((8, 8))
    out = Dropout(0.5).apply({}, x, True, rngs={"dropout": jax.random.key(0)})
    assert np.array_equal(jax.grad(total)(x), out)  # d(2 m x)/dx = 2 m


# The places, in a model whose tokens show the mask of one place: every parameter is zero but for one bias, so the
# residual stream is 2 m there (rate 0.5) and, after the last norm, positive where the place's mask keeps.

DEPTH, WIDTH, SIDE = 3, 32, 8
PLACES = {
    "positions": "Transformer/posembed_input/pos_embedding",
    **{f"attention {i}": f"Transformer/encoderblock_{i}/MultiHeadDotProductAttention_1/out/bias" for i in range(DEPTH)},
    **{f"mlp {i}": f"Transformer/encoderblock_{i}/MlpBlock_3/Dense_1/bias" for i in range(DEPTH)},
}
MODEL = VisionTransformer(3, (1, 1), WIDTH, DEPTH, 16, 2, dropout=0.5)
TOKENS = jax.jit(lambda params, images, rng: build.make_forward(MODEL)(params, images, train=True, rng=rng).tokens)


def shown(place):
    shapes = traverse_util.flatten_dict(build.abstract_params(MODEL, (SIDE, SIDE)), sep="/")
    params = {name: np.zeros(x.shape, x.dtype) for name, x in shapes.items()}
    params["Transformer/encoder_norm/scale"] += 1
    params[PLACES[place]] += 1
    return traverse_util.unflatten_dict(params, sep="/")


def kept(place, seed=0, batch=8):
    images = jnp.full((batch, SIDE, SIDE, 3), 127, jnp.uint8)
    return np.asarray(TOKENS(shown(place), images, jax.random.key(seed))) > 0


@pytest.mark.slow
def test_every_place_has_a_mask_of_its_own():
    masks = {place: kept(place) for place in PLACES}
    size = masks["positions"].size
    for place, mask in masks.items():
        assert abs(mask.mean() - 0.5) < 4.5 * 0.5 / np.sqrt(size), place
    pairs = [correlation(a, b) for i, a in enumerate(masks.values()) for b in list(masks.values())[:i]]
    assert len(pairs) == 21
    assert np.abs(pairs).max() < 4.5 / np.sqrt(size)


def test_every_step_and_example_has_a_mask_of_its_own():
    first, second = kept("mlp 1", seed=0), kept("mlp 1", seed=1)
    assert abs(correlation(first, second)) < 4.5 / np.sqrt(first.size)
    assert abs(correlation(first[0], first[1])) < 4.5 / np.sqrt(first[0].size)
    assert np.array_equal(first, kept("mlp 1", seed=0))


def test_the_hidden_layer_of_the_mlp_is_dropped_and_the_projections_are_not():
    model = VisionTransformer(3, (4, 4), 8, 1, 16, 2, dropout=0.5, attention_dropout=0.25, attention="xla")
    found = {}

    def note(call, args, kwargs, context):
        if isinstance(context.module, Dropout) and context.method_name == "__call__":
            found["/".join(context.module.path)] = context.module.rate, args[0].shape
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        params = build.abstract_params(model, (8, 8))
        forward = functools.partial(build.make_forward(model), train=True)
        jax.eval_shape(forward, params, jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.uint8), rng=jax.random.key(0))
    block = "Transformer/encoderblock_0"
    assert found == {
        "Transformer/Dropout_0": (0.5, (2, 5, 8)),
        f"{block}/MultiHeadDotProductAttention_1/Dropout_0": (0.25, (2, 2, 5, 5)),
        f"{block}/Dropout_0": (0.5, (2, 5, 8)),
        f"{block}/MlpBlock_3/Dropout_0": (0.5, (2, 5, 16)),
        f"{block}/MlpBlock_3/Dropout_1": (0.5, (2, 5, 8)),
    }


@pytest.mark.slow
def test_one_device_and_eight_drop_the_same_elements():
    images = np.full((16, SIDE, SIDE, 3), 127, np.uint8)
    masks = []
    for count in (1, 8):
        mesh = partition.make_mesh(devices=jax.devices()[:count])
        on_devices = jax.device_put(images, partition.batch_sharding(mesh))
        params = jax.device_put(shown("mlp 2"), partition.replicated(mesh))
        key = jax.device_put(jax.random.key(5), partition.replicated(mesh))
        tokens = TOKENS(params, on_devices, key)
        assert len(tokens.sharding.device_set) == count
        masks.append(np.asarray(tokens) > 0)
    assert np.array_equal(*masks)
    assert 0.45 < masks[0].mean() < 0.55


# Stochastic depth


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_branch_is_left_out_for_whole_examples_and_keeps_its_mean(dtype):
    x = jnp.ones((4096, 3, 5), dtype)
    out = DropPath().apply({}, x, jnp.float32(0.2), True, rngs={"dropout": jax.random.key(0)})
    assert out.dtype == x.dtype
    out = np.asarray(out, np.float32)
    assert np.array_equal(out, np.broadcast_to(out[:, :1, :1], out.shape))
    assert np.unique(out).tolist() == [0.0, 1.25]
    # The mean of 4096 values that are 5/4 with probability 4/5 deviates by 1/2 / sqrt(4096).
    assert out.mean() == pytest.approx(1.0, abs=4 * 0.5 / 64)


@pytest.mark.parametrize("train", [False, True])
def test_without_training_or_at_rate_0_every_branch_is_kept(train):
    x = jnp.arange(24.0).reshape(4, 2, 3)
    rngs = {"dropout": jax.random.key(0)} if train else {}
    rate = jnp.float32(0.0 if train else 0.9)
    assert np.array_equal(DropPath().apply({}, x, rate, train, rngs=rngs), x)


RATES = (0, 0.3, 0.6)


def added(scan, train):
    """What each of three blocks adds to every token: (layer, example).

    Every parameter is zero but the biases at the ends of the branches: 1 for attention and 100 for the MLP.
    """
    model = VisionTransformer(3, (2, 2), 4, 3, 4, 2, stochastic_depth=RATES[-1], scan=scan)
    params = {name: np.zeros(shape, np.float32) for name, shape in model_shapes(model, (2, 2)).items()}
    for name, x in params.items():
        x += name.endswith("out/bias") + 100 * name.endswith("MlpBlock_3/Dense_1/bias")
    rngs = {"dropout": jax.random.key(1)} if train else {}
    images = np.zeros((4096, 2, 2, 3), np.uint8)
    layers = np.stack(run(model, params, images, train=train, capture=("layers",), rngs=rngs).layers)
    assert np.array_equal(layers, np.broadcast_to(layers[:, :, :1, :1], layers.shape))
    return np.diff(layers[:, :, 0, 0], axis=0, prepend=0)


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True])
def test_rates_grow_linearly_from_0_to_the_last_block(scan):
    steps = added(scan, train=True)
    kept = []
    for layer, rate in enumerate(RATES):
        values = np.round(steps[layer] * (1 - rate), 2)  # survivors are scaled by 1 / (1 - rate)
        assert set(values.tolist()) == ({101} if rate == 0 else {0, 1, 100, 101})
        for branch in (values % 100 == 1, values >= 100):
            assert abs(branch.mean() - (1 - rate)) <= 4 * np.sqrt(rate * (1 - rate) / branch.size)
            kept.append(branch)
    pairs = [correlation(a, b) for i, a in enumerate(kept[2:]) for b in kept[2:][:i]]
    assert len(pairs) == 6
    assert np.abs(pairs).max() < 4.5 / np.sqrt(kept[0].size)


@pytest.mark.parametrize("scan", [False, True])
def test_evaluation_leaves_no_branch_out(scan):
    assert np.unique(added(scan, train=False)).tolist() == [101]
