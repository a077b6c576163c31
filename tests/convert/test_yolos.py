"""Detectors of Hugging Face: a golden file, written and read again, and their exchange of encoders with classifiers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints import GOLDEN
from flax.traverse_util import flatten_dict

from vit_jax.convert.adapt import fit_params
from vit_jax.convert.load import check_head, load, load_model
from vit_jax.convert.names import POSITIONS
from vit_jax.convert.open import open_checkpoint
from vit_jax.convert.save import save_model
from vit_jax.convert.yolos import QUERIES
from vit_jax.models.build import init_params
from vit_jax.models.detection import Yolos
from vit_jax.models.positions import resample_positions
from vit_jax.models.vit import VisionTransformer
from vit_jax.targets import Boxes
from vit_jax.train.objectives import set_prediction
from vit_jax.types import Batch, UserError

DETECTOR = GOLDEN / "hf_detector"
SIZES = {"patch_size": (4, 4), "width": 24, "depth": 2, "mlp_dim": 40, "num_heads": 3, "gelu": "erf"}
# tests/peers/torch_models.py: of the first image; the second has no object.
KINDS, BOXES = [1, 4, 4], [[0.3, 0.4, 0.2, 0.3], [0.7, 0.6, 0.3, 0.2], [0.5, 0.5, 1.0, 1.0]]


def flat(params):
    return flatten_dict(params, sep="/")


@pytest.mark.slow
def test_scores_boxes_and_losses_equal_transformers_own():
    with np.load(DETECTOR / "detections.npz") as kept:
        kept = dict(kept)
    module, params = load_model(DETECTOR)
    outputs = jax.jit(module.apply)({"params": params}, kept["images"])
    for name in ("class_logits", "boxes"):
        np.testing.assert_allclose(outputs.extra[name], kept[name], rtol=1e-5, atol=1e-5)
    target = Boxes(6, 4).empty(2)
    box = np.array(BOXES, np.float32)
    target.box[0, :3] = np.concatenate([box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2], axis=1)
    target.kind[0, :3], target.valid[0, :3] = KINDS, 1
    batch = jax.tree.map(jnp.asarray, Batch(kept["images"], target, np.ones(2, np.float32)))
    objective = set_prediction()
    values = jax.jit(lambda o, b: objective.values(o, objective.prepare(b)))(outputs, batch)
    found = [float(values[name].mean()) for name in ("loss_class", "loss_box", "loss_giou")]
    np.testing.assert_allclose(found, kept["losses"], rtol=1e-5)


@pytest.mark.parametrize("form", ["hf", "orbax", "npz"])
def test_a_detector_is_written_and_read_again_to_the_bit(tmp_path, form):
    loaded = load(DETECTOR)
    path = str(tmp_path / ("copy.npz" if form == "npz" else "copy"))
    save_model(loaded, path, form)
    again = load(path)
    assert {key: again.settings[key] for key in loaded.settings} == loaded.settings
    assert again.settings["position_grid"] == (4, 6)
    found, expected = flat(again.params), flat(loaded.params)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    if form == "hf":
        config = json.loads((tmp_path / "copy" / "config.json").read_text())
        theirs = json.loads((DETECTOR / "config.json").read_text())
        same = (
            "model_type",
            "image_size",
            "patch_size",
            "num_detection_tokens",
            "use_mid_position_embeddings",
            "id2label",
        )
        assert {key: config[key] for key in same} == {key: theirs[key] for key in same}


def fit(source, model, resolution, **options):
    fresh = {name: np.asarray(x) for name, x in flat(init_params(model, jax.random.key(1), resolution)).items()}
    return *fit_params(source, fresh, head="zeros", new_grid=model.table_grid(resolution), **options), fresh


def fates(report):
    return {fate.name: fate.action for fate in report}


@pytest.mark.slow
def test_a_classifier_starts_a_detector_and_every_tensor_has_a_line():
    source = open_checkpoint(str(GOLDEN / "hf_classifier"))  # 4 x 4 patches
    model = Yolos(3, **SIZES, queries=5, position_grid=(2, 6))
    params, report, fresh = fit(source, model, (16, 16), resize="bicubic")
    action = fates(report)
    assert action.keys() >= params.keys() | source.tensors.keys()
    expected = resample_positions(source.tensors[POSITIONS], (4, 4), (2, 6), has_class_token=True, method="bicubic")
    np.testing.assert_array_equal(params[POSITIONS], expected)
    for name in ("detection_tokens", QUERIES, "box_head/Dense_2/bias", "head/Dense_0/kernel"):
        assert action[name] == "fresh"
        np.testing.assert_array_equal(params[name], fresh[name])
    assert action["head/kernel"] == "dropped"
    assert action["Transformer/encoderblock_1/MlpBlock_3/Dense_0/kernel"] == "loaded"


@pytest.mark.slow
def test_a_detector_starts_a_classifier_and_every_tensor_has_a_line():
    source = open_checkpoint(str(DETECTOR))
    params, report, _ = fit(source, VisionTransformer(4, **SIZES), (16, 16))
    action = fates(report)
    assert action.keys() >= params.keys() | source.tensors.keys()
    assert params[POSITIONS].shape == (1, 17, 24)
    left = ("detection_tokens", QUERIES, "Transformer/mid_positions", "box_head/Dense_0/bias", "head/Dense_2/kernel")
    assert {action[name] for name in left} == {"dropped"}


@pytest.mark.slow
def test_a_detector_of_other_classes_keeps_tokens_and_boxes():
    source = open_checkpoint(str(DETECTOR))
    model = Yolos(2, **SIZES, queries=7, position_grid=(4, 6), mid_positions=True)
    params, report, _ = fit(source, model, (16, 24))
    np.testing.assert_array_equal(params["detection_tokens"], source.tensors["detection_tokens"])
    action = fates(report)
    assert (action[QUERIES], action["box_head/Dense_0/kernel"]) == ("loaded", "loaded")
    assert [fate.action for fate in report if fate.name == "head/Dense_2/bias"] == ["fresh", "dropped"]


@pytest.mark.slow
def test_without_positions_of_its_tokens_a_detector_is_refused():
    loaded = open_checkpoint(str(DETECTOR))
    del loaded.tensors[QUERIES]
    fresh = flat(init_params(Yolos(6, **SIZES, queries=7, mid_positions=True), jax.random.key(0), (16, 24)))
    with pytest.raises(UserError, match="missing in the checkpoint: Transformer/query_positions"):
        fit_params(loaded, fresh, head="keep", new_grid=(4, 6))


def test_a_detector_is_no_classifier():
    with pytest.raises(UserError, match="finds objects and gives an image no class"):
        check_head(load(DETECTOR))
