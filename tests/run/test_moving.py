"""A run that moves between a CPU and an accelerator: keys that the device decided are no difference, and the layers of its
checkpoint, stacked on the one and apart on the other, are laid out anew."""

import json
import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from vit_jax import config as configs
from vit_jax import partition
from vit_jax.models.build import abstract_params, init_params, relayout
from vit_jax.models.vit import VisionTransformer
from vit_jax.run import run
from vit_jax.train.checkpoint import read_params
from vit_jax.train.folders import run_folder
from vit_jax.types import UserError

TINY = {
    "model.width": 16,
    "model.depth": 2,
    "model.mlp_dim": 16,
    "model.num_heads": 1,
    "model.representation_size": 8,
    "model.dtype": "auto",
    "model.scan": "auto",
    "data.batch_size": 64,
    "data.split": "train[:256]",
    "train.duration": 4,
    "train.log_every": 1,
    "checkpoint.every": 2,
    "evals.test.split": "test[:64]",
    "evals.test.batch_size": 64,
}


@pytest.fixture
def start(monkeypatch, digits):
    """Runs on a device of a kind: the computations are this machine's, and the choices are the kind's."""

    def start(workdir, backend, **more):
        monkeypatch.setattr(jax, "default_backend", lambda: backend)
        config = configs.load("configs/pretrain.py:variant=Nano/4,dataset=digits")
        overrides = {**TINY, "data.data_dir": digits, **more}
        return run(config, workdir, overrides=[(key, str(value)) for key, value in overrides.items()])

    return start


@pytest.mark.slow
@pytest.mark.parametrize(("here", "there"), [("cpu", "gpu"), ("gpu", "cpu")])
def test_a_run_resumes_on_another_kind_of_device(start, tmp_path, capfd, here, there):
    start(tmp_path / "run", here)
    whole, meta = read_params(run_folder(str(tmp_path / "run")), average=False)
    assert meta["config"]["model"]["scan"] is (here == "cpu")
    assert meta["config"]["model"]["dtype"] == {"cpu": "float32", "gpu": "bfloat16"}[here]
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")  # as if killed after step 3
    (tmp_path / "run" / "run.json").unlink()
    capfd.readouterr()
    start(tmp_path / "run", there)
    assert (
        f"another device than before: model.dtype: {meta['config']['model']['dtype']!r} -> " in capfd.readouterr().out
    )
    moved, meta = read_params(run_folder(str(tmp_path / "run")), average=False)
    assert meta["config"]["model"]["scan"] is (there == "cpu")
    stacked, apart = (whole, moved) if here == "cpu" else (moved, whole)
    assert "Transformer/encoderblock/LayerNorm_0/scale" in stacked
    for name, value in apart.items():
        before, layer, after = name.partition("encoderblock_")
        found = stacked[f"{before}encoderblock{after[1:]}"][int(after[0])] if layer else stacked[name]
        # Two steps of Adam at warm-up move each value by 1e-3 at most, and bfloat16 has 8 bits.
        np.testing.assert_allclose(found, value, atol=2e-3, err_msg=name)
    entries = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries if "train/loss" in entry] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_run_resumes_where_less_memory_asks_for_recomputation(start, monkeypatch, tmp_path):
    where = {"memory": 10**9}
    monkeypatch.setattr(partition, "device_memory", lambda devices: where["memory"])
    config = {}
    for name, after in (("whole", 10**9), ("moved", 2 * 10**5)):
        where["memory"] = 10**9
        start(tmp_path / name, "gpu", **{"model.dtype": "float32"})
        shutil.rmtree(tmp_path / name / "checkpoints" / "4")  # as if killed after step 3
        (tmp_path / name / "run.json").unlink()
        where["memory"] = after
        start(tmp_path / name, "gpu", **{"model.dtype": "float32"})
        config[name] = json.loads((tmp_path / name / "run.json").read_text())["config"]
    whole, moved = config["whole"], config["moved"]
    assert (whole["model"]["remat"], whole["train"]["fsdp"]) == ("none", 1)
    assert (moved["model"]["remat"], moved["model"]["scan"], moved["train"]["accumulation"]) == ("block", False, 1)
    assert moved["train"]["fsdp"] > 1
    expected, found = (read_params(run_folder(str(tmp_path / name)), average=False)[0] for name in config)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_a_dtype_that_was_set_by_hand_is_a_difference(start, tmp_path):
    start(tmp_path / "run", "cpu", **{"model.dtype": "float32"})
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(UserError, match=r"holds a different run(.|\n)*model\.dtype: 'float32' -> 'bfloat16'"):
        start(tmp_path / "run", "gpu")


@pytest.mark.slow
def test_layers_are_stacked_and_taken_apart_without_changing_a_value():
    fields = {"num_classes": 3, "width": 8, "depth": 3, "mlp_dim": 8, "num_heads": 2, "patch_size": (4, 4)}
    apart, stacked = (VisionTransformer(**fields, scan=scan) for scan in (False, True))
    looped = init_params(apart, jax.random.key(0), (8, 8))
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def like(model):
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), abstract_params(model, (8, 8))
        )

    scanned = relayout({"params": looped}, {"params": like(stacked)})["params"]
    expected = flatten_dict(init_params(stacked, jax.random.key(0), (8, 8)), sep="/")
    found = flatten_dict(scanned, sep="/")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    # The optimizer's state of a model whose first block is frozen: zeros for it in a stack.
    some = {"Transformer": {k: x for k, x in looped["Transformer"].items() if k != "encoderblock_0"}}
    kernels = relayout(some, {"Transformer": {"encoderblock": like(stacked)["Transformer"]["encoderblock"]}})
    for name, x in flatten_dict(kernels, sep="/").items():
        assert not np.asarray(x[0]).any(), name
        assert np.array_equal(x[1:], expected[name][1:]), name
    back = flatten_dict(relayout(scanned, like(apart)), sep="/")
    assert all(np.array_equal(back[name], value) for name, value in flatten_dict(looped, sep="/").items())
