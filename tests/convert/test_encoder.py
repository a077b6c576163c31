"""One task's model from another's encoder: which tensors are taken, left aside and started anew."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from vit_jax.convert.adapt import fit_params
from vit_jax.convert.checkpoint import Checkpoint
from vit_jax.convert.encoder import suit
from vit_jax.models import build

SIZES = {"patch_size": (4, 4), "width": 8, "depth": 1, "mlp_dim": 12, "num_heads": 2}
KINDS = {
    "vit": {"num_classes": 5},
    "masked": {},
    "mae": {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2, "decoder_mlp_dim": 12},
}


def model(name, **options):
    return {"name": name, **SIZES, **KINDS[name], **options}


def drawn(section, seed):
    """{name: array} of a model of a section, for images of 8 x 12 pixels."""
    module = build.MODELS[section["name"]](**{key: x for key, x in section.items() if key != "name"})
    params = build.init_params(module, jax.random.key(seed), (8, 12))
    return {name: np.asarray(x) for name, x in flatten_dict(params, sep="/").items()}


def start(ours, theirs):
    """(parameters, {name: action}, source's tensors, fresh ones) of a model that starts from another."""
    source = Checkpoint("them", "run", drawn(theirs, 1), dict(theirs), (2, 3))
    fresh = drawn(ours, 2)
    params, fates = fit_params(suit(source, ours), fresh, head="zeros", new_grid=(2, 3))
    return params, {fate.name: fate.action for fate in fates}, source.tensors, fresh


ENCODER = ("embedding/", "Transformer/", "cls")


@pytest.mark.slow
@pytest.mark.parametrize("theirs", ["masked", "mae"])
@pytest.mark.parametrize("ours", ["vit", "masked", "mae"])
def test_any_starts_from_a_masked_model_and_its_decoder_is_left_aside(ours, theirs):
    params, actions, source, fresh = start(model(ours), model(theirs))
    for name, x in params.items():
        taken = name.startswith(ENCODER) or ours == theirs
        np.testing.assert_array_equal(x, source[name] if taken else fresh[name], err_msg=name)
        assert actions[name] == ("loaded" if taken else "fresh"), name
    decoder = {name for name in source if not name.startswith(ENCODER)}
    assert decoder
    for name in decoder if ours != theirs else ():
        assert actions[name] in ("aside", "fresh"), name
    if ours == "vit":
        assert {actions[name] for name in decoder} == {"aside"}


@pytest.mark.slow
@pytest.mark.parametrize("ours", ["masked", "mae"])
def test_a_classifier_starts_a_masked_model_and_its_head_is_dropped(ours):
    params, actions, source, _ = start(model(ours), model("vit", representation_size=6))
    np.testing.assert_array_equal(params["embedding/kernel"], source["embedding/kernel"])
    assert {actions[name] for name in source if name.startswith(("head/", "pre_logits/"))} == {"dropped"}
    assert {actions[name] for name in params if not name.startswith(ENCODER)} == {"fresh"}


@pytest.mark.slow
def test_a_decoder_of_another_target_starts_anew():
    params, actions, _, fresh = start(model("masked", decoder="mean_colour"), model("masked"))
    np.testing.assert_array_equal(params["decoder/kernel"], fresh["decoder/kernel"])
    assert actions["embedding/kernel"] == "loaded"


def test_a_classifier_gets_the_norm_that_a_masked_model_without_one_lacks():
    params, actions, *_ = start(model("vit"), model("masked", final_norm=False))
    assert actions["Transformer/encoder_norm/scale"] == "fresh"
    assert (params["Transformer/encoder_norm/scale"] == 1).all()


def test_maes_fixed_positions_become_a_classifiers_learned_ones():
    source = Checkpoint("them", "run", {}, model("mae", positions="sincos_mae"))
    assert suit(source, model("vit")).settings["positions"] == "learned_1d"
    settings = suit(source, model("vit")).settings
    assert not {"decoder_width", "mask_ratio"} & set(settings)
    assert suit(source, model("mae")) is source


def test_other_families_are_left_as_they_are():
    source = Checkpoint("them", "run", {}, {"name": "mixer"})
    assert suit(source, model("vit")) is source


@pytest.mark.slow
def test_a_bias_that_all_layers_share_becomes_one_for_each():
    bias = {"positions": "relative_bias", "layer_scale": 0.1, "depth": 2}
    theirs = model("masked", positions_at="shared", **bias)
    params, actions, source, _ = start(model("vit", positions_at="every_layer", **bias), theirs)
    for layer in range(2):
        name = f"Transformer/encoderblock_{layer}/relative_bias/rel_bias"
        np.testing.assert_array_equal(params[name], source["Transformer/relative_bias/rel_bias"])
        assert actions[name] == "loaded"
    kept, *_ = start(model("vit", positions_at="shared", **bias), theirs)
    assert "Transformer/relative_bias/rel_bias" in kept
