"""FLOPs counted from a program against FLOPs counted on paper: two per multiply-add."""

import jax
import jax.numpy as jnp
import pytest

from vit_jax.flops import count_flops
from vit_jax.models import build
from vit_jax.models.vit import VisionTransformer


def flops(fn, *shapes, dtype=jnp.float32):
    return count_flops(jax.make_jaxpr(fn)(*(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)))


def test_a_matrix_product_is_two_per_multiply_add():
    assert flops(jnp.matmul, (3, 5), (5, 7)) == 2 * 3 * 5 * 7
    assert flops(lambda a, b: jnp.einsum("bnhk,bmhk->bhnm", a, b), (2, 3, 4, 5), (2, 6, 4, 5)) == 2 * 2 * 3 * 6 * 4 * 5
    assert flops(lambda a: jnp.tanh(a) + 1, (9, 9)) == 0


def test_a_convolution_counts_its_outputs_times_its_kernel():
    def convolve(x, kernel, groups=1):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )

    # 8x8 to 3x3 with a 3x3 kernel and stride 2: 9 places, 3*3*4 inputs, 6 outputs, 2 images.
    assert flops(convolve, (2, 8, 8, 4), (3, 3, 4, 6)) == 2 * 2 * 9 * 36 * 6
    # In two groups every output sees half of the inputs.
    assert flops(lambda x, k: convolve(x, k, 2), (2, 8, 8, 4), (3, 3, 2, 6)) == 2 * 2 * 9 * 18 * 6


def tiny_vit(b=3, h=8, w=12):
    model = VisionTransformer(5, (4, 4), 16, 2, 24, 2, representation_size=10)
    params = build.abstract_params(model, (h, w))
    return model, params, jax.ShapeDtypeStruct((b, h, w, 3), jnp.uint8)


def vit_by_hand(b=3):
    d, n, mlp, patches = 16, 7, 24, 6
    embedding = patches * 4 * 4 * 3 * d
    projections = 4 * n * d * d  # query, key, value, out
    attention = 2 * n * n * d  # scores and mixture, over both heads
    block = projections + attention + 2 * n * d * mlp
    head = d * 10 + 10 * 5
    return 2 * b * (embedding + 2 * block + head)


def test_a_vit_forward_pass_by_hand():
    model, params, images = tiny_vit()
    assert count_flops(jax.make_jaxpr(build.make_forward(model))(params, images)) == vit_by_hand()


def test_a_gradient_costs_twice_its_forward_again_but_for_the_image():
    model, params, images = tiny_vit()

    def loss(params, images):
        return build.make_forward(model)(params, images).logits.sum()

    embedding = 2 * 3 * 6 * 48 * 16  # the gradient with respect to the pixels is not asked for
    assert count_flops(jax.make_jaxpr(jax.grad(loss))(params, images)) == 3 * vit_by_hand() - embedding


def test_gradients_of_a_strided_convolution_cost_what_it_costs():
    def conv(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    forward = 2 * (3 * 4 * 4 * 7) * (2 * 2 * 5)  # images 3, outputs 4x4x7, taps 2x2x5
    shapes = (3, 8, 8, 5), (2, 2, 5, 7)
    assert flops(conv, *shapes) == forward
    assert flops(jax.grad(lambda x, kernel: conv(x, kernel).sum(), argnums=(0, 1)), *shapes) == 3 * forward


def test_a_scan_counts_as_often_as_it_runs_and_nested_ones_multiply():
    def inner(x, _):
        return x @ x, None

    def outer(x, _):
        return jax.lax.scan(inner, x, length=5)[0], None

    assert flops(lambda x: jax.lax.scan(inner, x, length=7)[0], (4, 4)) == 7 * 2 * 64
    assert flops(lambda x: jax.lax.scan(outer, x, length=3)[0], (4, 4)) == 15 * 2 * 64


def test_jit_remat_and_branches_are_looked_into():
    square = jnp.matmul
    assert flops(lambda x: jax.jit(square)(x, x), (4, 4)) == 128
    assert flops(lambda x: jax.checkpoint(square)(x, x), (4, 4)) == 128
    branches = lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)  # noqa: E731
    assert flops(branches, (4, 4)) == 256  # the dearer branch


def test_a_loop_of_unknown_length_is_refused_only_if_it_matters():
    def doubles(x):
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x + x, x)

    def squares(x):
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ x, x)

    assert flops(doubles, (4, 4)) == 0
    with pytest.raises(NotImplementedError, match="unknown length"):
        flops(squares, (4, 4))
