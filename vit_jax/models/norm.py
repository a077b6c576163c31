"""LayerNorm whose backward pass keeps its input as it is and two numbers per token.

Autodiff keeps float32 copies of the input; in a scanned B/16 with bfloat16 compute they were a quarter of what a step keeps.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize(
    x: Float[Array, "*b d"], scale: Float[Array, " d"], bias: Float[Array, " d"], eps: float
) -> Float[Array, "*b d"]:
    """LayerNorm over the last axis in float32, as flax computes it; the result has the dtype of `x`."""
    return _forward(x, scale, bias, eps)[0]


def _forward(x, scale, bias, eps):
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide, axis=-1, keepdims=True)
    var = jnp.maximum(0.0, jnp.mean(wide * wide, axis=-1, keepdims=True) - mean * mean)
    inverse = jax.lax.rsqrt(var + eps)
    scale, bias = (y.reshape((1,) * (x.ndim - 1) + y.shape) for y in (scale, bias))
    return ((wide - mean) * (inverse * scale) + bias).astype(x.dtype), (x, scale, mean, inverse)


def _backward(eps, kept, grad):
    x, scale, mean, inverse = kept
    unit = (x.astype(jnp.float32) - mean) * inverse
    grad = grad.astype(jnp.float32)
    scaled = grad * scale
    along = jnp.mean(scaled * unit, axis=-1, keepdims=True)
    grad_x = inverse * (scaled - jnp.mean(scaled, axis=-1, keepdims=True) - unit * along)
    axes = tuple(range(x.ndim - 1))
    return grad_x.astype(x.dtype), jnp.sum(grad * unit, axis=axes), jnp.sum(grad, axis=axes)


normalize.defvjp(_forward, _backward)


class LayerNorm(nn.Module):
    """LayerNorm over the width with parameters `scale` and `bias`, in the dtype of its input.

    Args:
      epsilon: added to the variance.
    """

    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        scale = self.param("scale", nn.initializers.ones_init(), x.shape[-1:], jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), x.shape[-1:], jnp.float32)
        return normalize(x, jnp.asarray(scale), jnp.asarray(bias), self.epsilon)  # outside jit they may be numpy arrays
