"""Where a run's parameters start: the head's classes by name, and what is said when the checkpoint's model is another."""

from pathlib import Path

import numpy as np
import numpy_vit
import PIL.Image
import pytest
from checkpoints import GOLDEN, copy_golden, golden_tensors, save_npz
from flax.traverse_util import flatten_dict

from vit_jax import config as configs
from vit_jax.run.initial import initial_params
from vit_jax.run.job import build_job
from vit_jax.types import UserError

ROOT = Path(__file__).resolve().parents[2]
DRAWN = {
    "model__width": "8",
    "model__depth": "2",
    "model__mlp_dim": "12",
    "model__num_heads": "2",
}  # numpy_vit.draw_params
NAMES = ["ant", "bee", "cow", "dog", "elk", "fox", "gnu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An image of each of seven classes, to train on and to test."""
    root = tmp_path_factory.mktemp("seven")
    for split in ("train", "test"):
        for name in NAMES:
            (root / split / name).mkdir(parents=True)
            PIL.Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(root / split / name / "0.png")
    return root


def start(folder, init, *, variant="", **keys):
    """A run that is ready to start, and its parameters; `keys` are overrides with __ for a point."""
    config = configs.load(f"{ROOT}/configs/finetune.py:dataset={folder}{variant and f',variant={variant}'}")
    given = {"init": init, "data.resolution": "(16, 16)", "data.batch_size": "8", "evals.test.batch_size": "8"}
    given |= {key.replace("__", "."): value for key, value in keys.items()}
    job = build_job(config, list(given.items()))
    params, fates = initial_params(job.config, job.parts.model, job.init_source)
    return job, flatten_dict(params, sep="/"), fates


def named(names):
    return {"id2label": {str(i): name for i, name in enumerate(names)}}


def test_a_kept_head_of_the_same_classes_is_the_files(folder, tmp_path):
    init = copy_golden("hf_classifier", tmp_path / "hf", config=named(NAMES))
    _, params, fates = start(folder, init, init__head="keep")
    assert np.array_equal(params["head/kernel"], golden_tensors("hf_classifier")["classifier.weight"].T)
    assert {fate.action for fate in fates} == {"loaded"}


def test_a_kept_head_of_the_same_classes_in_another_order_is_put_in_the_datas(folder, tmp_path):
    theirs = ["gnu", "ant", "elk", "bee", "fox", "dog", "cow"]
    init = copy_golden("hf_classifier", tmp_path / "hf", config=named(theirs))
    _, params, fates = start(folder, init, init__head="keep")
    weight, bias = (golden_tensors("hf_classifier")[f"classifier.{leaf}"] for leaf in ("weight", "bias"))
    for label, name in enumerate(NAMES):
        assert np.array_equal(params["head/kernel"][:, label], weight[theirs.index(name)])
        assert params["head/bias"][label] == bias[theirs.index(name)]
    told = {fate.name: fate for fate in fates if fate.action == "reordered"}
    assert set(told) == {"head/kernel", "head/bias"}
    assert "in another order; its head's outputs are put in the data's" in told["head/bias"].detail


def test_a_kept_head_of_other_classes_is_refused_before_anything_is_computed(folder, tmp_path):
    init = copy_golden("hf_classifier", tmp_path / "hf", config=named([*NAMES[:6], "hen"]))
    with pytest.raises(
        UserError, match=r"only the checkpoint has 'hen'; only the data has 'gnu'; use .*init.head=zeros"
    ):
        start(folder, init, init__head="keep")
    start(folder, init)  # a new head has no classes yet


def test_a_kept_head_without_names_is_trusted_with_a_word(folder):
    _, _, fates = start(folder, str(GOLDEN / "timm_token"), init__head="keep")
    (told,) = (fate.detail for fate in fates if "classes" in fate.detail)
    assert told.endswith(
        "has no names of its classes, and " + f"{folder} 'ant', 'bee', 'cow', 'dog', 'elk', ...; "
        "they are taken to be in the same order"
    )


def test_a_variant_beside_a_checkpoint_of_another_says_both_and_what_to_leave_out(folder):
    theirs = r"a ViT \(width 24, depth 2, MLP 48, heads 3, patches of 4x4\)"
    with pytest.raises(
        UserError, match=rf"config.model is B/16 \(width 768, .*, and the model of \S+ is {theirs}"
    ) as told:
        start(folder, str(GOLDEN / "timm_token"), variant="B/16")
    assert str(told.value).endswith("; leave `variant` out of --config, and the model is the checkpoint's")
    assert "\n" not in str(told.value)
    for variant in ("R50x1", "Mixer-B/16", "R50+B/16"):
        with pytest.raises(UserError, match="leave `variant` out of --config"):
            start(folder, str(GOLDEN / "timm_token"), variant=variant)
    with pytest.raises(
        UserError, match=r"depth 3, .*; leave --config.model.depth out, and the model is the checkpoint's"
    ):
        start(folder, str(GOLDEN / "timm_token"), model__depth="3")


def test_a_variant_that_is_the_checkpoints_is_fine(folder, tmp_path):
    init = save_npz(tmp_path / "vit.npz", numpy_vit.draw_params(patch=(4, 4)))
    _, params, _ = start(folder, init, variant="Ti/4", **DRAWN)
    assert params["cls"].shape == (1, 1, 8)


@pytest.mark.slow
def test_a_checkpoint_without_positions_asks_for_the_key_to_set(folder, tmp_path):
    tensors = numpy_vit.draw_params(patch=(4, 4))
    del tensors[numpy_vit.POSITIONS]
    init = save_npz(tmp_path / "vit.npz", tensors)
    for more in (
        {},
        {"variant": "Ti/4", "model__width": "8", "model__depth": "2", "model__mlp_dim": "12", "model__num_heads": "2"},
    ):
        with pytest.raises(
            UserError, match=r"\(none\) or with fixed ones \(sincos_2d\).*; set --config.model.positions to one"
        ):
            start(folder, init, **more)
        for kind in ("none", "sincos_2d"):
            job, params, _ = start(folder, init, model__positions=kind, **more)
            assert job.config.model.positions == kind
            assert not [name for name in params if "pos_emb" in name]
