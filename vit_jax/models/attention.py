"""Softmax attention by name: the cores that mix values by scaled dot products, and the rules that choose one.

Source: arXiv 2010.11929, appendix A, eqs. 5-7. The softmax is computed in float32 by every core, whatever the compute dtype.
On a TPU v5e the plain core was 35% of a B/16 step's estimated cycles for 4% of its FLOPs, because (n, n) arrays in float32 pass
through memory.
"""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from vit_jax.models.dropout import drop

Core = Literal["xla", "fused", "cudnn", "splash"]

# Names of the arrays that a policy of rematerialisation keeps, because they are the costly ones to compute again.
WEIGHTS, MIXED = "attention_weights", "attention_mixed"
LANES = 128  # splash attention computes blocks of a multiple of as many tokens


class Case(NamedTuple):
    """The facts that decide which cores a model can have.

    Args:
      backend: `cpu`, `gpu` or `tpu`.
      tokens: length of the sequences.
      head: dimensions per head.
      dtype: compute dtype.
      relative: whether relative positions bias the logits.
      dropout: rate on the attention weights.
      capability: compute capability of a CUDA GPU, 8.0 for Ampere; 0 if there is none or it is unknown.
    """

    backend: str
    tokens: int
    head: int
    dtype: str
    relative: bool = False
    dropout: float = 0.0
    capability: float = 0.0


def refusal(core: Core, case: Case) -> str:
    """The reason why a core cannot be had; "" if it can."""
    if core == "xla":
        return ""
    if case.relative:
        return "relative positions bias the logits"
    if core == "fused":
        return ""
    if case.dropout:
        return f"it has no dropout of attention weights, and model.attention_dropout is {case.dropout}"
    if core == "cudnn":
        if case.backend != "gpu" or case.capability < 8:
            return "it needs a CUDA GPU of compute capability 8.0 (Ampere) or later"
        if case.dtype != "bfloat16":
            return f"it computes in 16 bits, and model.dtype is {case.dtype}"
        most = 256 if case.capability >= 9 else 128
        if case.head % 8 or case.head > most:
            return f"heads have {case.head} dimensions; it takes a multiple of 8 up to {most}"
        return ""
    if case.backend != "tpu":
        return "it needs a TPU"
    if case.head > LANES and case.head % LANES:
        return f"heads have {case.head} dimensions; it takes up to {LANES} or a multiple of {LANES}"
    return ""


def choose(case: Case) -> tuple[Core, str]:
    """The core that suits a model and its device, and the reason."""
    if case.relative:
        return "xla", refusal("fused", case)
    if not refusal("cudnn", case):
        return "cudnn", f"suits 16 bits and heads of {case.head} dimensions"
    # `splash` is for those who ask for it, on one chip: XLA cannot split a Pallas kernel over several.
    return "fused", "keeps least for the backward pass"


def weigh(
    q: Float[Array, "b n heads k"], keys: Float[Array, "b m heads k"], bias: Float[Array, "#b heads n m"] | None = None
) -> Float[Array, "b heads n m"]:
    """Attention weights of queries that are already scaled by k^-1/2, in their dtype."""
    logits = jnp.einsum("bnhk,bmhk->bhnm", q, keys, preferred_element_type=jnp.float32)
    return checkpoint_name(jax.nn.softmax(logits if bias is None else logits + bias, axis=-1).astype(q.dtype), WEIGHTS)


def mix(weights: Float[Array, "b heads n m"], values: Float[Array, "b m heads k"]) -> Float[Array, "b n heads k"]:
    """Weighted sums of the values."""
    return checkpoint_name(jnp.einsum("bhnm,bmhk->bnhk", weights, values), MIXED)


def attend(
    core: Core,
    q: Float[Array, "b n heads k"],
    keys: Float[Array, "b m heads k"],
    values: Float[Array, "b m heads k"],
    rate: float = 0.0,
    key: jax.Array | None = None,
) -> Float[Array, "b n heads k"]:
    """Mixes values by one of the cores that hand out no weights.

    Args:
      core: its name; `cudnn` and `splash` take as many keys as queries, so other sequences are mixed by `fused`.
      q: queries, already scaled by k^-1/2.
      keys, values: of the tokens to mix.
      rate: dropout of the weights.
      key: PRNG key of the dropout; None for none.
    """
    if core == "cudnn" and q.shape == keys.shape:
        return cudnn(q, keys, values)
    if core == "splash" and q.shape == keys.shape:
        return splash(q, keys, values)
    return fused(q, keys, values, key, 0.0 if key is None else rate)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def fused(
    q: Float[Array, "b n heads k"],
    keys: Float[Array, "b m heads k"],
    values: Float[Array, "b m heads k"],
    key: jax.Array | None,
    rate: float,
) -> Float[Array, "b n heads k"]:
    """`mix(drop(weigh(q, keys)), values)` with a backward pass that keeps the weights in the compute dtype and no other (n, m)
    array: autodiff keeps the softmax's float32 output beside its bfloat16 copy, and the dropout's mask.
    """
    return _fused_forward(q, keys, values, key, rate)[0]


def _fused_forward(q, keys, values, key, rate):
    weights = weigh(q, keys)
    out = mix(drop(weights, key, rate), values)
    return out, (q, keys, values, key, weights, out)


def _fused_backward(rate, kept, grad):
    q, keys, values, key, weights, out = kept
    grad_values = jnp.einsum("bhnm,bnhk->bmhk", drop(weights, key, rate), grad)
    # Between kernels the gradients of the weights are of the compute dtype, like all other gradients.
    grad_weights = drop(jnp.einsum("bnhk,bmhk->bhnm", grad, values), key, rate).astype(jnp.float32)
    mean = jnp.sum(grad.astype(jnp.float32) * out.astype(jnp.float32), axis=-1).swapaxes(1, 2)[..., None]  # b heads n 1
    grad_logits = (weights.astype(jnp.float32) * (grad_weights - mean)).astype(q.dtype)
    grad_q = jnp.einsum("bhnm,bmhk->bnhk", grad_logits, keys)
    return grad_q, jnp.einsum("bhnm,bnhk->bmhk", grad_logits, q), grad_values, None


fused.defvjp(_fused_forward, _fused_backward)


def cudnn(
    q: Float[Array, "b n heads k"], keys: Float[Array, "b n heads k"], values: Float[Array, "b n heads k"]
) -> Float[Array, "b n heads k"]:
    """cuDNN's fused attention; `refusal` has its conditions.

    JAX refuses its gradient for odd lengths, which a class token makes of most, so an odd sequence gets a token that is masked.
    """
    b, n, *_ = q.shape
    if n % 2 == 0:
        return jax.nn.dot_product_attention(q, keys, values, scale=1.0, implementation="cudnn")
    n_each = jnp.full((b,), n, jnp.int32)
    q, keys, values = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (q, keys, values))
    return jax.nn.dot_product_attention(
        q, keys, values, scale=1.0, query_seq_lengths=n_each, key_value_seq_lengths=n_each, implementation="cudnn"
    )[:, :n]


def splash(
    q: Float[Array, "b n heads k"],
    keys: Float[Array, "b n heads k"],
    values: Float[Array, "b n heads k"],
    interpret: bool = False,
) -> Float[Array, "b n heads k"]:
    """JAX's splash attention for TPUs, on sequences padded to whole blocks whose padding is masked.

    Run in Pallas's interpreter only; never compiled for a TPU or run on one so far. It has no rule of sharding, so it is for a
    single chip, and nothing chooses it.

    Args:
      q, keys, values: queries already scaled.
      interpret: run on any device, slowly.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    _, n, heads, _ = q.shape
    padded = -(-n // LANES) * LANES
    block = next(size for size in (1024, 512, 384, 256, LANES) if padded % size == 0)
    kernel = kernels.make_splash_mha(
        masks.MultiHeadMask([masks.FullMask((padded, padded))] * heads),
        head_shards=1,
        q_seq_shards=1,
        block_sizes=kernels.BlockSizes(
            block_q=block,
            block_kv=block,
            block_kv_compute=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_kv_dkv_compute=block,
            use_fused_bwd_kernel=True,
        ),
        interpret=interpret,
    )
    segment = (jnp.arange(padded) >= n).astype(jnp.int32)
    ids = kernels.SegmentIds(q=segment, kv=segment)
    q, keys, values = (jnp.pad(x, ((0, 0), (0, padded - n), (0, 0), (0, 0))).swapaxes(1, 2) for x in (q, keys, values))
    out = jax.vmap(functools.partial(kernel, segment_ids=ids))(q, keys, values)  # b heads padded k
    return out.swapaxes(1, 2)[:, :n]
