"""LayerNorm with a backward pass of its own, against numpy in float64 and flax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import QUICK

from vit_jax.models.norm import LayerNorm, normalize

NAMES = ("out", "x", "scale", "bias")


def drawn(shape=(2, 5, 6), seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal(shape) * 3 + 2,
        rng.standard_normal(6) + 1,
        rng.standard_normal(6),
        rng.standard_normal(shape),
    )


def by_numpy(x, scale, bias, grad, eps):
    """The result, and the gradients through the Jacobian of one token: (I - 1/d - u u^T / d) / sigma."""
    deviation = np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    unit, d = (x - x.mean(axis=-1, keepdims=True)) / deviation, x.shape[-1]
    jacobian = (np.eye(d) - 1 / d - unit[..., :, None] * unit[..., None, :] / d) / deviation[..., None]
    of_x = np.einsum("...i,...ij->...j", grad * scale, jacobian)
    axes = tuple(range(x.ndim - 1))
    return unit * scale + bias, of_x, (grad * unit).sum(axis=axes), grad.sum(axis=axes)


@pytest.mark.parametrize("shape", [(2, 5, 6), (2, 5, 3, 6)])  # of queries too
def test_result_and_gradients_are_numpys(shape):
    x, scale, bias, grad = drawn(shape)

    def run(x, scale, bias, grad):
        out, pull = jax.vjp(lambda *args: normalize(*args, 1e-6), x, scale, bias)
        return out, *pull(grad)

    found = jax.jit(run, compiler_options=QUICK)(*(jnp.asarray(a, "float32") for a in (x, scale, bias, grad)))
    for name, value, right in zip(NAMES, found, by_numpy(x, scale, bias, grad, 1e-6), strict=True):
        np.testing.assert_allclose(value, right, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_module_is_flaxs_in_names_and_results(dtype):
    x, scale, bias, _ = drawn()
    x = jnp.asarray(x, dtype)
    variables = {"params": {"scale": jnp.asarray(scale, "float32"), "bias": jnp.asarray(bias, "float32")}}
    ours, flaxs = LayerNorm(1e-6), nn.LayerNorm(epsilon=1e-6, dtype=jnp.dtype(dtype))
    a, b = ours.apply(variables, x), flaxs.apply(variables, x)
    assert a.dtype == b.dtype == dtype
    np.testing.assert_allclose(
        np.asarray(a, "float32"), np.asarray(b, "float32"), rtol=0 if dtype == "bfloat16" else 1e-6
    )
    init = [jax.tree.map(np.asarray, model.init(jax.random.key(0), x)) for model in (ours, flaxs)]
    assert jax.tree.all(jax.tree.map(np.array_equal, *init))


def test_no_float32_array_of_the_inputs_size_is_kept():
    x, scale = jax.ShapeDtypeStruct((2, 5, 6), "bfloat16"), jax.ShapeDtypeStruct((6,), "float32")
    _, pull = jax.eval_shape(lambda *args: jax.vjp(lambda *args: normalize(*args, 1e-6), *args), x, scale, scale)
    assert [str(kept.dtype) for kept in jax.tree.leaves(pull) if kept.shape == (2, 5, 6)] == ["bfloat16"]
