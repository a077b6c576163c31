"""Initial values: their distributions, and the same ones however they are asked for."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from vit_jax.models import build, initializers
from vit_jax.models.vit import VisionTransformer

N = 240 * 400


def test_normal_has_the_deviation_asked_for():
    x = np.asarray(initializers.normal(0.02)(jax.random.key(0), (1, 240, 400)))
    assert x.std() == pytest.approx(0.02, rel=4 / math.sqrt(2 * N))
    assert abs(x.mean()) < 4 * 0.02 / math.sqrt(N)
    assert np.abs(x).max() > 0.06  # not cut


@pytest.mark.parametrize("shape", [(240, 400), (2, 120, 400)])
def test_xavier_is_uniform_within_its_limit(shape):
    x = np.asarray(initializers.xavier_uniform()(jax.random.key(0), shape))
    limit = math.sqrt(6 / (240 + 400))
    assert 0.999 * limit < x.max() <= limit
    assert -limit <= x.min() < -0.999 * limit
    # A uniform variable in +-a has variance a^2 / 3; the estimate's relative deviation is sqrt(0.8 / n).
    assert x.var() == pytest.approx(limit**2 / 3, rel=4 * math.sqrt(0.8 / N))
    assert abs(x.mean()) < 4 * limit / math.sqrt(3 * N)


@pytest.mark.parametrize("shape", [(240, 400), (4, 20, 3, 400)])
def test_lecun_is_a_normal_of_variance_one_over_fan_in_cut_at_two_deviations(shape):
    x = np.asarray(initializers.lecun_normal()(jax.random.key(0), shape))
    assert x.var() == pytest.approx(1 / 240, rel=4 * math.sqrt(2 / N))
    # The uncut normal's deviation is 1 / 0.87962566 times larger, and nothing lies beyond two of them.
    cut = 2 / 0.87962566103423978 / math.sqrt(240)
    assert 0.99 * cut < np.abs(x).max() <= cut
    # A normal cut at 2 has P(|x| < 1) = 0.6827 / 0.9545.
    assert np.mean(np.abs(x) < cut / 2) == pytest.approx(0.71525, abs=4 * math.sqrt(0.2 / N))


def test_values_come_from_numpy_seeded_by_the_key():
    key = jax.random.key(42)
    expected = np.random.default_rng(np.asarray(jax.random.key_data(key))).standard_normal((3, 5), np.float32)
    assert np.array_equal(initializers.normal(1.0)(key, (3, 5)), expected)
    assert not np.array_equal(initializers.normal(1.0)(jax.random.key(43), (3, 5)), expected)


@pytest.mark.parametrize(
    "init", [initializers.normal(0.02), initializers.xavier_uniform(), initializers.lecun_normal()]
)
def test_jit_draws_what_eager_draws(init):
    key = jax.random.key(1)
    eager = init(key, (4, 6), jnp.float32)
    jitted = jax.jit(lambda key: init(key, (4, 6), jnp.float32))(key)
    assert eager.dtype == jitted.dtype == jnp.float32
    assert np.array_equal(eager, jitted)
    assert jax.eval_shape(lambda key: init(key, (4, 6), jnp.float32), key).shape == (4, 6)


MODEL = VisionTransformer(5, (4, 4), 64, 2, 96, 4, representation_size=32)


@pytest.fixture(scope="module")
def drawn():
    params = build.init_params(MODEL, jax.random.key(0), (8, 12))
    return {name: np.asarray(x) for name, x in traverse_util.flatten_dict(params, sep="/").items()}


def test_the_shapes_are_the_parameters_shapes(drawn):
    shapes = traverse_util.flatten_dict(build.abstract_params(MODEL, (8, 12)), sep="/")
    assert {name: (x.shape, x.dtype) for name, x in shapes.items()} == {n: (x.shape, x.dtype) for n, x in drawn.items()}
    assert build.count_params(shapes) == sum(x.size for x in drawn.values())


def test_running_the_model_draws_the_same(drawn):
    images = jnp.zeros((1, 8, 12, 3))
    params = jax.jit(lambda key: MODEL.init(key, images)["params"])(jax.random.key(0))
    for name, x in traverse_util.flatten_dict(params, sep="/").items():
        assert np.array_equal(x, drawn[name]), name


@pytest.mark.parametrize("scan", [False, True])
def test_parameters_are_drawn_in_the_hosts_memory_whatever_the_default_device(scan):
    with jax.default_device(jax.devices()[3]):
        params = build.init_params(MODEL.clone(scan=scan), jax.random.key(0), (8, 12))
    places = {device for x in jax.tree.leaves(params) if isinstance(x, jax.Array) for device in x.devices()}
    assert places <= {jax.devices()[0]}


def test_the_seed_decides_and_no_two_parameters_share_values(drawn):
    again = build.init_params(MODEL, jax.random.key(0), (8, 12))
    other = traverse_util.flatten_dict(build.init_params(MODEL, jax.random.key(1), (8, 12)), sep="/")
    kernels = [name for name in drawn if name.endswith("kernel") and not name.startswith("head/")]
    assert len(kernels) == 14
    for name, x in traverse_util.flatten_dict(again, sep="/").items():
        assert np.array_equal(x, drawn[name]), name
    for name in kernels:
        assert not np.array_equal(other[name], drawn[name]), name
    firsts = [drawn[name].ravel()[:3].tobytes() for name in kernels]
    assert len(set(firsts)) == len(kernels)


def test_every_parameter_has_the_distribution_of_its_kind(drawn):
    def limit(name):
        return np.abs(drawn[name]).max()

    for layer in range(2):
        block = f"Transformer/encoderblock_{layer}"
        for part in ("query", "key", "value", "out"):
            # As the 64x64 matrix it flattens to: sqrt(6 / 128) = 0.2165. Of (64, 4, 16) it would be 0.1486.
            assert 0.21 < limit(f"{block}/MultiHeadDotProductAttention_1/{part}/kernel") <= math.sqrt(6 / 128)
        for dense in ("Dense_0", "Dense_1"):
            assert 0.19 < limit(f"{block}/MlpBlock_3/{dense}/kernel") <= math.sqrt(6 / 160)
            assert 1e-6 < limit(f"{block}/MlpBlock_3/{dense}/bias") < 1e-5  # normal of deviation 1e-6
        assert limit(f"{block}/MultiHeadDotProductAttention_1/out/bias") == 0
        assert set(drawn[f"{block}/LayerNorm_0/scale"]) == {1.0}
        assert set(drawn[f"{block}/LayerNorm_2/bias"]) == {0.0}
    # Relative deviation of an estimated standard deviation: 1 / sqrt(2 n).
    assert drawn["embedding/kernel"].std() == pytest.approx(1 / math.sqrt(48), rel=4 / math.sqrt(2 * 3072))
    assert drawn["pre_logits/kernel"].std() == pytest.approx(1 / math.sqrt(64), rel=4 / math.sqrt(2 * 2048))
    assert drawn["Transformer/posembed_input/pos_embedding"].std() == pytest.approx(0.02, rel=4 / math.sqrt(2 * 448))
    assert limit("embedding/bias") == limit("cls") == limit("head/kernel") == limit("head/bias") == 0
