"""Gradients of a class's score against differences of a float64 model's score."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy_vit
import pytest
from subjects import attending, of_numpy

from vit_jax.insight.gradients import class_gradients
from vit_jax.models.build import normalize


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["token", "map"])
def test_attention_and_gradients_are_those_of_a_float64_model(monkeypatch, pool):
    params = numpy_vit.draw_params(pool=pool)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), np.uint8)
    subject = of_numpy(params, pool=pool)

    def score(added=()):
        seen = []
        monkeypatch.setattr(numpy_vit, "attention", attending(seen, added))
        return numpy_vit.forward(params, images, pool=pool)["logits"][[0, 1], [3, 1]], seen

    attention, gradients, probe = jax.jit(
        lambda x, c: class_gradients(subject.module, subject.params, normalize(x), c)
    )(images, jnp.array([3, 1]))
    _, weights = score()
    assert len(attention) == len(gradients) == len(weights) - (pool == "map") == 2
    if pool == "map":
        attention, gradients = ((*xs, x[:, :, None]) for xs, x in zip((attention, gradients), probe, strict=True))
    else:
        assert probe == ()
    for layer in range(len(weights)):
        np.testing.assert_allclose(attention[layer], weights[layer], atol=1e-5)
        expected = np.zeros(weights[layer].shape)
        for head, query, key in np.ndindex(expected.shape[1:]):
            up, down = (score({(layer, head, query, key): x})[0] for x in (1e-5, -1e-5))
            expected[:, head, query, key] = (up - down) / 2e-5
        np.testing.assert_allclose(gradients[layer], expected, atol=1e-5, rtol=1e-4)
