"""The compute type reaches every part of every variety of model, and stops at the parameters and the logits.

Strict promotion makes an error of any two types that meet, so tracing the model is enough.
"""

import functools

import jax
import jax.numpy as jnp
import pytest
from tiny import tiny_vit

from vit_jax.models import build
from vit_jax.models.mixer import MlpMixer
from vit_jax.models.resnet import ResNet

EVERY_LAYER = {"positions_at": "every_layer"}
MODELS = {
    "token": tiny_vit(dropout=0.1, attention_dropout=0.1, representation_size=6, dtype="bfloat16"),
    "options": tiny_vit(registers=2, qk_norm=True, layer_scale=0.1, stochastic_depth=0.2, pool="map", dtype="bfloat16"),
    "scanned": tiny_vit(
        qk_norm=True, layer_scale=0.1, stochastic_depth=0.2, scan=True, remat="block", dtype="bfloat16"
    ),
    "relative": tiny_vit(positions="relative", **EVERY_LAYER, dtype="bfloat16"),
    "two axes": tiny_vit(positions="learned_2d", **EVERY_LAYER, norm_after_pool=True, dtype="bfloat16"),
    "fixed": tiny_vit(positions="sincos_2d", positions_at="shared", gelu="erf", dtype="bfloat16"),
    "axial": tiny_vit(axial=True, pool="gap", stochastic_depth=0.2, dtype="bfloat16"),
    "hybrid": tiny_vit(stem="resnet", stem_depths=(1, 1), stem_width=4, patch_size=(1, 1), dtype="bfloat16"),
    "bit": ResNet(5, (1, 1), dtype="bfloat16"),
    "mixer": MlpMixer(5, (4, 6), 8, 2, 5, 12, stochastic_depth=0.2, dtype="bfloat16"),
}


@pytest.mark.slow
@pytest.mark.parametrize("variety", MODELS)
def test_bfloat16_is_computed_with_float32_parameters_and_logits(variety):
    model = MODELS[variety]
    params = build.abstract_params(model, (8, 12))
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    images = jax.ShapeDtypeStruct((2, 8, 12, 3), jnp.uint8)
    rng = jax.eval_shape(jax.random.key, 0)

    forward = functools.partial(build.make_forward(model), train=True)
    outputs = jax.eval_shape(forward, params, images, rng=rng)
    assert outputs.tokens.dtype == outputs.pooled.dtype == outputs.pre_logits.dtype == jnp.bfloat16
    assert outputs.logits.dtype == jnp.float32
