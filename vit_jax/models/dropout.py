"""Dropout whose mask is a hash of the element's index: a few integer operations, fused into the operation that reads the result.

With `jax.random` instead, dropout 0.1 doubled the training step and tripled the compile time of S/16 on a CPU: threefry gives
cryptographic quality that dropout does not need. Like threefry, the hash depends only on the key and the global index, so one
device and eight drop the same elements.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32


def mix(x: UInt32[Array, ...]) -> UInt32[Array, ...]:
    """Scrambles 32 bits so that each output bit depends on every input bit.

    Source: the `lowbias32` constants of C. Wellons' hash-prospector search (multiply, xor-shift, twice).
    """
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def element_bits(key: jax.Array, shape: tuple[int, ...]) -> UInt32[Array, ...]:
    """32 random bits per element.

    Args:
      key: PRNG key; all of its bits are used.
      shape: at least one axis. The last axis and the others are hashed separately, so arrays may exceed 2^32 elements.
    """
    seed = jax.random.key_data(key).ravel()
    leading = (*shape[:-1], 1)
    row = jnp.zeros(leading, jnp.uint32)
    for axis, size in enumerate(shape[:-1]):
        row = row * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, leading, axis)
    column = jax.lax.broadcasted_iota(jnp.uint32, (1,) * len(shape[:-1]) + shape[-1:], len(shape) - 1)
    return mix(mix(mix(row ^ seed[0]) ^ seed[1]) + column * jnp.uint32(0x9E3779B9))


def keep_mask(key: jax.Array, shape: tuple[int, ...], rate: float) -> jax.Array:
    """True with probability 1 - rate (to 2^-32), independently per element; see `element_bits`."""
    return element_bits(key, shape) >= jnp.uint32(round(rate * 2**32))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def drop(x: Float[Array, ...], key: jax.Array | None, rate: float) -> Float[Array, ...]:
    """Zeroes a share of the elements and scales the others by 1 / (1 - rate); the identity without a key or a rate.

    The backward pass computes the mask anew from the key: autodiff keeps it, which in a scanned B/16 was 7% of what a step keeps.
    """
    return _drop(x, key, rate)


def _drop(x, key, rate):
    if key is None or rate == 0.0:
        return x
    mask = keep_mask(key, x.shape, rate)
    return jnp.where(mask, x / jnp.asarray(1 - rate, x.dtype), jnp.zeros((), x.dtype))


drop.defvjp(lambda x, key, rate: (drop(x, key, rate), key), lambda rate, key, grad: (drop(grad, key, rate), None))


class Dropout(nn.Module):
    """Zeroes a share of the elements and scales the others by 1 / (1 - rate) in training; otherwise the identity.

    Args:
      rate: share dropped, in [0, 1).
      recompute: keep no mask for the backward pass, see `drop`.
    """

    rate: float
    recompute: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, ...], train: bool) -> Float[Array, ...]:
        key = self.key(train)
        return drop(x, key, self.rate) if self.recompute else _drop(x, key, self.rate)

    def key(self, train: bool) -> jax.Array | None:
        """The key of the mask; None where nothing is dropped."""
        return self.make_rng("dropout") if train and self.rate else None


class DropPath(nn.Module):
    """Stochastic depth: omits a residual branch for whole examples, and scales it by 1 / (1 - rate) for the others.

    Source: arXiv 1603.09382; the caller makes the rate grow linearly with depth.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], rate: Float[Array, ""], train: bool) -> Float[Array, "b n d"]:
        if not train:
            return x
        bits = element_bits(self.make_rng("dropout"), (x.shape[0], 1, 1))
        # The rate may differ from layer to layer of a scan, so it is an array; 24 bits are exact in float32.
        keep = (bits >> 8).astype(jnp.float32) >= rate * 2.0**24
        return jnp.where(keep, x / (1 - rate).astype(x.dtype), jnp.zeros((), x.dtype))
