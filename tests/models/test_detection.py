"""YOLOS: published parameter counts, positions at other sizes, and what is independent of what."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from vit_jax.models.build import abstract_model, abstract_params, count_params, init_params
from vit_jax.models.detection import Yolos
from vit_jax.models.positions import resample_positions, sincos_2d, sincos_centred
from vit_jax.types import UserError

SMALL = {"patch_size": (4, 4), "width": 12, "depth": 3, "mlp_dim": 24, "num_heads": 2, "queries": 5}
SIZES = {"Ti": (192, 12, 768, 3), "S": (384, 12, 1536, 6), "S-dWr": (330, 14, 1320, 6), "B": (768, 12, 3072, 12)}


def small(**fields):
    model = Yolos(**{"num_classes": 3, **SMALL, **fields})
    return model, init_params(model, jax.random.key(0), (8, 12))


def images(h: int, w: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (2, h, w, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "grid", "mid", "count"),
    [
        ("Ti", (50, 83), False, 6_488_736),
        ("S", (32, 54), True, 30_684_768),
        ("S-dWr", (32, 54), True, 27_561_696),
        ("B", (50, 84), True, 127_798_368),
    ],
)
def test_the_published_models_have_their_number_of_parameters(size, grid, mid, count):
    width, depth, mlp_dim, num_heads = SIZES[size]
    model = Yolos(91, (16, 16), width, depth, mlp_dim, num_heads, position_grid=grid, mid_positions=mid)
    assert count_params(abstract_params(model, (512, 512))) == count


@pytest.mark.slow
def test_outputs_are_class_scores_with_no_object_and_boxes_inside_the_image():
    model, params = small()
    outputs = model.apply({"params": params}, images(8, 12))
    assert outputs.logits is None
    assert outputs.extra["class_logits"].shape == (2, 5, 4)
    boxes = outputs.extra["boxes"]
    assert boxes.shape == (2, 5, 4)
    assert 0 < boxes.min() < boxes.max() < 1
    assert outputs.tokens.shape == (2, 1 + 6 + 5, 12)


@pytest.mark.slow
def test_positions_are_resized_to_each_size_of_images_as_before_a_load():
    model, params = small(position_grid=(2, 3))
    flat = flatten_dict(params, sep="/")
    name = "Transformer/posembed_input/pos_embedding"
    assert flat[name].shape == (1, 7, 12)
    resized = resample_positions(np.asarray(flat[name]), (2, 3), (4, 5), has_class_token=True, method="bicubic")
    other, _ = small()
    params2 = jax.tree.map(np.asarray, params)
    params2["Transformer"]["posembed_input"]["pos_embedding"] = resized
    found = model.apply({"params": params}, images(16, 20)).extra["boxes"]
    np.testing.assert_allclose(found, other.apply({"params": params2}, images(16, 20)).extra["boxes"], atol=1e-6)


def test_without_a_grid_of_their_own_positions_fit_one_size_of_images():
    model, params = small()
    with pytest.raises(UserError, match="this model has positions for 6"):
        model.apply({"params": params}, images(16, 20))


@pytest.mark.slow
@pytest.mark.parametrize("mid", [False, True])
def test_a_scanned_detector_computes_the_looped_one(mid):
    looped, scanned = small(mid_positions=mid), small(mid_positions=mid, scan=True)
    outputs = [model.apply({"params": params}, images(8, 12)).extra for model, params in (looped, scanned)]
    for name in outputs[0]:
        np.testing.assert_allclose(outputs[0][name], outputs[1][name], atol=1e-5)


@pytest.mark.slow
def test_middle_positions_join_before_every_layer_but_the_first():
    model, params = small(mid_positions=True)
    layers = model.apply({"params": params}, images(8, 12), capture=("layers",)).layers
    mid = np.array(params["Transformer"]["mid_positions"])
    mid[1] += 1  # of the last layer
    params["Transformer"]["mid_positions"] = mid
    changed = model.apply({"params": params}, images(8, 12), capture=("layers",)).layers
    assert [bool(jnp.allclose(a, b)) for a, b in zip(layers, changed, strict=True)] == [True, True, False]


@pytest.mark.slow
def test_fixed_positions_suit_any_size_and_are_no_parameters():
    model, params = small(positions="sincos_2d")
    assert "posembed_input" not in params["Transformer"]
    found = [model.apply({"params": params}, images(*size)).extra["boxes"] for size in ((8, 12), (16, 20))]
    learned, _ = small()
    fixed = sincos_2d((2, 3), 12, temperature=20.0)
    table = np.concatenate([np.zeros((1, 12)), 0.3 * (fixed - fixed.mean(axis=0))])[None].astype(np.float32)
    same = {**params, "Transformer": {**params["Transformer"], "posembed_input": {"pos_embedding": table}}}
    np.testing.assert_allclose(found[0], learned.apply({"params": same}, images(8, 12)).extra["boxes"], atol=1e-6)
    assert found[1].shape == (2, 5, 4)


@pytest.mark.slow
def test_with_fixed_positions_keys_begin_as_queries_and_tokens_as_places():
    for scan in (False, True):
        _, params = small(positions="sincos_2d", queries=4, scan=scan)
        flat = flatten_dict(params, sep="/")
        keys = [name for name in flat if name.endswith("/key/kernel")]
        assert len(keys) == (1 if scan else 3)
        assert all(np.array_equal(flat[name], flat[name.replace("/key/", "/query/")]) for name in keys)
        places = sincos_centred((2, 2), (2, 3), 12)  # four places over 2 x 3 patches
        np.testing.assert_array_equal(flat["Transformer/query_positions"][0], places)
    _, params = small()
    flat = flatten_dict(params, sep="/")
    name = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/key/kernel"
    assert not np.array_equal(flat[name], flat[name.replace("/key/", "/query/")])


@pytest.mark.slow
def test_new_detectors_have_queries_that_differ():
    model, params = small()
    logits = model.apply({"params": params}, images(8, 12)).extra["class_logits"][0]
    assert np.unique(np.asarray(logits)[:, 0]).size == 5


def test_heads_are_drawn_as_pytorchs_linear():
    _, params = small(width=96)
    kernel, bias = (np.asarray(params["box_head"]["Dense_0"][leaf]) for leaf in ("kernel", "bias"))
    limit = 96**-0.5
    assert 0.98 * limit < np.abs(kernel).max() < limit
    assert kernel.std() == pytest.approx(limit / 3**0.5, rel=0.02)
    assert 0.5 * limit < np.abs(bias).max() < limit


def test_bfloat16_keeps_heads_and_parameters_float32():
    outputs, params = abstract_model(Yolos(3, **SMALL, dtype="bfloat16"), (8, 12))
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert outputs.extra["class_logits"].dtype == outputs.extra["boxes"].dtype == jnp.float32
    assert outputs.tokens.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"queries": 0}, "model.queries is 0; expected 1 or more"),
        ({"position_grid": (0, 3)}, r"model.position_grid is \(0, 3\)"),
        ({"stochastic_depth": 1.0}, "model.stochastic_depth is 1.0"),
        ({"gelu": "relu"}, "model.gelu is 'relu'"),
    ],
)
def test_impossible_fields_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        small(**fields)
