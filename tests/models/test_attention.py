"""Cores of attention against numpy in float64 and against each other, and the rules that choose one."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import QUICK, model_shapes, nested, random_images, tiny_vit

from vit_jax.models import attention, build
from vit_jax.models.attention import Case, choose, refusal
from vit_jax.models.dropout import drop, keep_mask

SIZES = (2, 7, 3, 4)  # b n heads k
NAMES = ("out", "q", "keys", "values")


def drawn(shape=SIZES, seed=0):
    """Scaled queries, keys, values and the gradient of the mixed values; keys of a large mean, so that logits are large."""
    rng = np.random.default_rng(seed)
    q, keys, values, grad = (rng.standard_normal(shape) for _ in range(4))
    return q, keys + 3.0, values, grad


def by_numpy(q, keys, values, grad, mask=None, rate=0.0):
    """Mixed values and the gradients of q, keys and values in float64, through the softmax's full Jacobian."""
    logits = np.einsum("bnhk,bmhk->bhnm", q, keys)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    scale = np.ones_like(weights) if mask is None else mask / (1 - rate)
    out = np.einsum("bhnm,bmhk->bnhk", weights * scale, values)
    of_weights = np.einsum("bnhk,bmhk->bhnm", grad, values) * scale
    jacobian = np.einsum("bhnm,ml->bhnml", weights, np.eye(weights.shape[-1]))
    jacobian -= weights[..., None] * weights[..., None, :]
    of_logits = np.einsum("bhnm,bhnml->bhnl", of_weights, jacobian)
    of_values = np.einsum("bhnm,bnhk->bmhk", weights * scale, grad)
    return out, np.einsum("bhnm,bmhk->bnhk", of_logits, keys), np.einsum("bhnm,bnhk->bmhk", of_logits, q), of_values


def computed(core, dtype, *arrays):
    """Mixed values and gradients of a core."""

    def run(q, keys, values, grad):
        out, pull = jax.vjp(core, q, keys, values)
        return out, *pull(grad)

    return jax.jit(run, compiler_options=QUICK)(*(jnp.asarray(x, dtype) for x in arrays))


def plain(q, keys, values, key=None, rate=0.0):
    return attention.mix(drop(attention.weigh(q, keys), key, rate), values)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("core", [plain, attention.fused])
def test_mixed_values_and_gradients_are_numpys(core, rate):
    arrays, key = drawn(), jax.random.key(3)
    mask = np.asarray(keep_mask(key, (2, 3, 7, 7), rate)) if rate else None
    found = computed(lambda q, k, v: core(q, k, v, key, rate), "float32", *arrays)
    for name, value, right in zip(NAMES, found, by_numpy(*arrays, mask, rate), strict=True):
        np.testing.assert_allclose(value, right, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_fused_is_within_bfloat16_of_float64(rate):
    # The inputs are of bfloat16; each result is off by a few roundings to its 8 bits, as the plain core's are.
    q, keys, values, grad = drawn((2, 33, 3, 16))
    arrays = [np.asarray(jnp.asarray(x, "bfloat16"), np.float64) for x in (q, keys - 3.0, values, grad)]
    key = jax.random.key(3)
    mask = np.asarray(keep_mask(key, (2, 3, 33, 33), rate)) if rate else None
    right = by_numpy(*arrays, mask, rate)
    for core in (plain, attention.fused):
        found = computed(lambda q, k, v, core=core: core(q, k, v, key, rate), "bfloat16", *arrays)
        assert {x.dtype for x in found} == {jnp.dtype("bfloat16")}
        off = [np.abs(np.asarray(x, np.float64) - y).max() / np.abs(y).max() for x, y in zip(found, right, strict=True)]
        assert max(off) < 3 * 2**-8


def test_fused_keeps_neither_float32_weights_nor_the_mask():
    q = jax.ShapeDtypeStruct(SIZES, "bfloat16")

    def kept(core):
        _, pull = jax.eval_shape(lambda *x: jax.vjp(lambda *x: core(*x, jax.random.key(0), 0.5), *x), q, q, q)
        return [str(x.dtype) for x in jax.tree.leaves(pull) if x.shape == (2, 3, 7, 7)]

    assert kept(attention.fused) == ["bfloat16"]
    assert "float32" in kept(plain)  # the test sees it where it is


@pytest.mark.parametrize("n", [6, 7])
def test_cudnn_is_given_an_even_length_and_masks_the_token_that_makes_it_even(n, monkeypatch):
    # JAX refuses cuDNN's gradient of odd lengths; the same call is computed by XLA here, with the lengths that cuDNN gets.
    real, lengths = jax.nn.dot_product_attention, []

    def by_xla(q, keys, values, *, implementation, **options):
        assert implementation == "cudnn"
        lengths.append(q.shape[1])
        return real(q, keys, values, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", by_xla)
    arrays = drawn((2, n, 3, 4))
    found = computed(attention.cudnn, "float32", *arrays)
    for name, value, right in zip(NAMES, found, by_numpy(*arrays), strict=True):
        np.testing.assert_allclose(value, right, rtol=1e-5, atol=1e-5, err_msg=name)
    assert set(lengths) == {n + n % 2}


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True])
def test_a_model_of_fused_attention_trains_as_the_plain_one_does(scan):
    options = {"depth": 1, "attention_dropout": 0.3, "pool": "map", "scan": scan}
    shapes = model_shapes(tiny_vit(**options))
    rng = np.random.default_rng(0)
    params = nested({name: rng.standard_normal(shape).astype(np.float32) * 0.4 for name, shape in shapes.items()})

    def gradients(kind):
        def loss(params):
            forward = build.make_forward(tiny_vit(**options, attention=kind))
            logits = forward(params, jnp.asarray(random_images()), train=True, rng=jax.random.key(3)).logits
            return jnp.sum(logits * logits)

        return jax.jit(jax.value_and_grad(loss), compiler_options=QUICK)(params)

    plain, fused = (jax.tree.leaves(gradients(kind)) for kind in ("xla", "fused"))
    assert max(np.abs(x).max() for x in plain) > 1
    for a, b in zip(plain, fused, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(np.abs(a).max(), 1))


@pytest.mark.slow  # Pallas's interpreter
@pytest.mark.parametrize("n", [128, 150])
def test_splash_attention_is_numpys_with_and_without_padding(n):
    arrays = drawn((1, n, 2, 8))

    def core(q, keys, values):
        return attention.splash(q, keys, values, interpret=True)

    for name, value, right in zip(NAMES, computed(core, "float32", *arrays), by_numpy(*arrays), strict=True):
        np.testing.assert_allclose(value, right, rtol=1e-4, atol=1e-4, err_msg=name)


# The rules

H100, A100, T4 = (Case("gpu", 197, 64, "bfloat16", capability=x) for x in (9.0, 8.0, 7.5))
V5E = Case("tpu", 577, 64, "bfloat16")
CPU = Case("cpu", 197, 64, "float32")


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        (CPU, "fused"),
        (V5E, "fused"),
        (V5E._replace(tokens=576), "fused"),
        (V5E._replace(dropout=0.1), "fused"),
        (V5E._replace(head=80), "fused"),
        (V5E._replace(head=144), "fused"),
        (V5E._replace(relative=True), "xla"),
        (H100, "cudnn"),
        (H100._replace(tokens=50, head=256), "cudnn"),
        (A100._replace(head=128), "cudnn"),
        (A100._replace(head=136), "fused"),
        (H100._replace(head=60), "fused"),
        (H100._replace(dtype="float32"), "fused"),
        (H100._replace(dropout=0.1), "fused"),
        (H100._replace(relative=True), "xla"),
        (H100._replace(capability=0.0), "fused"),  # not of NVIDIA
        (T4, "fused"),
    ],
)
def test_the_core_that_suits_a_device_is_chosen_with_a_reason(case, kind):
    found, why = choose(case)
    assert found == kind
    assert refusal(found, case) == ""
    assert why


@pytest.mark.parametrize(
    ("kind", "case", "reason"),
    [
        ("fused", CPU._replace(relative=True), "relative positions bias the logits"),
        ("cudnn", CPU, "a CUDA GPU of compute capability 8.0"),
        ("cudnn", T4, "a CUDA GPU of compute capability 8.0"),
        ("cudnn", H100._replace(dtype="float32"), "16 bits, and model.dtype is float32"),
        ("cudnn", A100._replace(head=136), "136 dimensions; it takes a multiple of 8 up to 128"),
        ("splash", H100, "needs a TPU"),
        ("splash", V5E._replace(head=144), "144 dimensions; it takes up to 128"),
        ("splash", V5E._replace(dropout=0.1), "no dropout of attention weights, and model.attention_dropout is 0.1"),
    ],
)
def test_a_core_that_cannot_be_had_is_refused_with_the_reason(kind, case, reason):
    assert reason in refusal(kind, case)
    assert refusal("xla", case) == ""


@pytest.mark.parametrize("core", ["xla", "fused"])
def test_plain_attention_leaves_all_gradients_to_autodiff_so_older_runs_keep_their_bits(core):
    model = tiny_vit(attention=core, dropout=0.1, attention_dropout=0.1)
    params = build.abstract_params(model, (8, 12))

    def forward(params, images, rng):
        return build.make_forward(model)(params, images, train=True, rng=rng).logits

    program = str(jax.make_jaxpr(forward)(params, jnp.asarray(random_images()), jax.random.key(0)))
    own = set(re.findall(r"custom_vjp_call\[\s*name=(\w+)", program)) - {"gelu"}  # whose backward pass is autodiff's
    assert bool(own) == (core == "fused")
