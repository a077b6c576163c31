"""What a model learned, from attention weights of transformers' model of the same weights: the same numbers to 1e-5."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch_models as peers

from vit_jax.convert.load import load_model
from vit_jax.insight import attention_distance, cka, rollout
from vit_jax.insight.attention import entropy, joint_attention
from vit_jax.insight.gradients import class_gradients

pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize("size", [16, (16, 24)], ids=str)
def test_attention_and_all_that_follows_from_it(tmp_path, size):
    theirs = peers.hugging_face(image_size=size)
    theirs.set_attn_implementation("eager")  # the one that hands out weights
    peers.save_hugging_face(theirs, tmp_path / "hf")
    x, classes = peers.images(size), [4, 2]
    answer = theirs(peers.nchw(x), output_attentions=True, output_hidden_states=True)
    score = answer.logits[[0, 1], classes].sum()
    slopes = [g.numpy() for g in torch.autograd.grad(score, answer.attentions, retain_graph=True)]
    expected = [a.detach().numpy() for a in answer.attentions]

    module, params = load_model(str(tmp_path / "hf"))
    run = jax.jit(lambda x, c: class_gradients(module, params, x, c))
    attention, gradients, _ = ([np.asarray(a) for a in part] for part in run(x, jnp.array(classes)))
    outputs = jax.jit(lambda x: module.apply({"params": params}, x, capture=("layers", "attention")))(x)
    assert len(attention) == len(expected) == 2
    for layer in range(2):
        np.testing.assert_allclose(attention[layer], expected[layer], atol=1e-5)
        np.testing.assert_allclose(outputs.attention[layer], expected[layer], atol=1e-5)
        np.testing.assert_allclose(gradients[layer], slopes[layer], rtol=1e-5, atol=1e-5)
    grid = module.grid(x.shape[1:3])
    np.testing.assert_allclose(rollout(attention), rollout(expected), atol=1e-5)
    np.testing.assert_allclose(entropy(attention), entropy(expected), atol=1e-5)
    pixels = attention_distance(expected, grid, module.patch_size)
    np.testing.assert_allclose(attention_distance(attention, grid, module.patch_size), pixels, rtol=1e-5)
    joint = joint_attention(expected, slopes)
    np.testing.assert_allclose(joint_attention(attention, gradients), joint, rtol=1e-5, atol=1e-5)
    layers = [np.asarray(z) for z in outputs.layers]
    states = [z.detach().numpy() for z in answer.hidden_states[1:]]  # the first are the embeddings
    for mine, other in zip(layers[:1], states[:1], strict=True):  # the last state may be after the norm
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5)
    tokens = [z[0] for z in (*layers, states[0])]
    assert cka(tokens[0], tokens[1]) == pytest.approx(cka(tokens[2], tokens[1]), abs=1e-5)
