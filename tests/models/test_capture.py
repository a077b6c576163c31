"""What a model hands out besides its outputs: tokens after each block, and attention weights."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy_options
import numpy_vit
import pytest
from tiny import QUICK, model_shapes, nested, random_images, run, tiny_vit

from vit_jax.models.build import make_forward
from vit_jax.types import Outputs

BOTH = ("layers", "attention")
VARIETIES = {
    "class token": {},
    "registers": {"registers": 3},
    "relative": {"positions": "relative", "positions_at": "every_layer"},
    "axial": {"axial": True, "pool": "gap"},
}


@pytest.mark.parametrize("variety", VARIETIES)
def test_layers_and_attention_are_numpys(variety):
    model = tiny_vit(**VARIETIES[variety])
    images = random_images(w=18)
    params = numpy_vit.draw(model_shapes(model, (8, 18)))
    outputs = run(model, params, images, capture=BOTH)
    expected = numpy_options.forward(params, images, pool=model.pool, grid=(2, 3))
    assert len(outputs.layers) == len(outputs.attention) == 2
    for name in BOTH:
        for value, right in zip(getattr(outputs, name), expected[name], strict=True):
            np.testing.assert_allclose(value, right, rtol=2e-5, atol=2e-5, err_msg=name)
    for weights in outputs.attention:
        np.testing.assert_allclose(weights.sum(axis=-1), np.ones(weights.shape[:-1]), atol=1e-6)
    np.testing.assert_allclose(outputs.logits, expected["logits"], rtol=2e-5, atol=2e-5)


def test_attention_is_that_before_dropout():
    model, params = tiny_vit(attention_dropout=0.5), numpy_vit.draw_params()
    asked = {"capture": ("attention",), "train": True, "rngs": {"dropout": jax.random.key(0)}}
    first, _ = run(model, params, random_images(), **asked).attention
    expected = numpy_options.forward(params, random_images())["attention"][0]
    np.testing.assert_allclose(first, expected, atol=1e-5)


def test_only_what_is_asked_for_is_handed_out():
    params = numpy_vit.draw_params()
    plain = run(tiny_vit(), params, random_images())
    assert plain.layers is None
    assert plain.attention is None
    outputs = run(tiny_vit(), params, random_images(), capture=("attention",))
    assert outputs.layers is None
    assert len(outputs.attention) == 2
    assert np.array_equal(outputs.logits, plain.logits)


def block_outputs(program):
    """How many arrays leave each block: a sub-program of its own in a loop, the body of a scan."""
    blocks = [equation for equation in program.eqns if equation.primitive.name in ("jit", "scan")]
    return [len(block.outvars) for block in blocks]


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True])
def test_what_is_not_asked_for_leaves_no_block(scan):
    # Attention weights that left a block would be kept in memory: n^2 per head and layer.
    model = tiny_vit(scan=scan)
    params = nested({name: np.zeros(shape, np.float32) for name, shape in model_shapes(model).items()})
    images = jnp.zeros((1, 8, 12, 3))

    def program(capture):
        return jax.make_jaxpr(lambda p, x: model.apply({"params": p}, x, capture=capture))(params, images).jaxpr

    blocks = 1 if scan else 2
    assert block_outputs(program(())) == [1] * blocks
    assert block_outputs(program(("layers",))) == [2] * blocks
    assert block_outputs(program(BOTH)) == [3] * blocks
    assert [len(program(capture).outvars) for capture in ((), ("layers",), BOTH)] == [4, 6, 8]
    assert str(program(())) == str(jax.make_jaxpr(lambda p, x: model.apply({"params": p}, x))(params, images))


@pytest.mark.slow
def test_a_key_does_not_mean_training_and_capture_needs_neither():
    model = tiny_vit(dropout=0.5, depth=1)
    params, images = nested(numpy_vit.draw(model_shapes(model))), jnp.asarray(random_images())
    forward = jax.jit(make_forward(model), static_argnames=("train", "capture"), compiler_options=QUICK)
    plain, drawn = forward(params, images), forward(params, images, rng=jax.random.key(0))
    np.testing.assert_array_equal(plain.logits, drawn.logits)
    trained = forward(params, images, train=True, rng=jax.random.key(0), capture=("layers",))
    assert not np.array_equal(plain.logits, trained.logits)
    assert (plain.layers, len(trained.layers)) == (None, 1)


def test_extra_is_no_part_of_a_compiled_program_until_a_task_fills_it():
    plain = Outputs(1.0, 2.0, 3.0, 4.0)
    assert jax.tree.leaves(plain) == [1.0, 2.0, 3.0, 4.0]
    task = plain._replace(extra={"mask": 5.0})
    assert jax.tree.map(lambda x: x + 1, task).extra == {"mask": 6.0}
    assert Outputs(1.0, 2.0, 3.0, 4.0).extra == {}
