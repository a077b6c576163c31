"""From tokens to class scores: a new head gives its bias, and computes in float32."""

import jax
import numpy as np
import numpy_vit
import pytest
from tiny import random_images, run, shapes_of, tiny_vit

from vit_jax.models import build


def test_map_pooling_has_the_later_releases_names():
    names = {name for name in shapes_of("Ti/16", num_classes=10, pool="map") if name.startswith("MAPHead_0/")}
    attention = {f"MultiHeadDotProductAttention_0/{p}" for p in ("query", "key", "value", "out")}
    parts = {*attention, "MlpBlock_0/Dense_0", "MlpBlock_0/Dense_1"}
    expected = {f"MAPHead_0/{part}/{leaf}" for part in parts for leaf in ("kernel", "bias")}
    assert names == expected | {"MAPHead_0/probe", "MAPHead_0/LayerNorm_0/scale", "MAPHead_0/LayerNorm_0/bias"}


@pytest.mark.slow
def test_a_new_head_gives_its_bias():
    model = tiny_vit(head_bias=-10.0, representation_size=6)
    params = build.init_params(model, jax.random.key(0), (8, 12))
    outputs = run(model, params, random_images())
    assert np.asarray(outputs.logits).tolist() == [[-10.0] * 5] * 3
    assert np.abs(outputs.pre_logits).max() > 1e-3
    assert np.asarray(params["cls"]).tolist() == [[[0.0] * 8]]


@pytest.mark.slow
def test_no_classes_is_no_head():
    model = tiny_vit(num_classes=0)
    params = build.init_params(model, jax.random.key(0), (8, 12))
    assert "head" not in params
    outputs = run(model, params, random_images())
    assert outputs.logits is None
    assert np.array_equal(outputs.pre_logits, outputs.tokens[:, 0])


def test_the_head_computes_in_float32_whatever_the_rest_does():
    # 1 + 2^-10 is no bfloat16: a head that rounded its kernel or its product would lose it.
    params = {name: np.zeros_like(v) for name, v in numpy_vit.draw_params().items()}
    params["Transformer/encoder_norm/bias"] += 1
    params["head/kernel"] += np.float32(1 / 8 * (1 + 2**-10))
    logits = run(tiny_vit(dtype="bfloat16"), params, random_images()).logits
    assert np.asarray(logits).tolist() == [[1 + 2**-10] * 5] * 3
