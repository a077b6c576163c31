"""Few-shot runs of a sweep: features once per checkpoint and set, and the numbers that the evaluator gives."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from vit_jax import partition
from vit_jax.convert.load import load
from vit_jax.data.open import open_source
from vit_jax.evals.base import Bound
from vit_jax.evals.fewshot import FewShot
from vit_jax.models.build import make_forward
from vit_jax.sweeps import probe as probing
from vit_jax.sweeps.grid import load_grid, probe_config
from vit_jax.sweeps.probe import probe
from vit_jax.types import UserError


def runs_of(checkpoint, data_dir, shots="1+5", **settings):
    overrides = [("data_dir", data_dir), ("test_split", "test[:100]"), *settings.items()]
    grid = load_grid(f"configs/fewshot.py:init={checkpoint},sets=digits,shots={shots}", overrides)
    return grid.final_runs("digits", {})


@pytest.mark.slow
def test_scores_are_the_evaluators(checkpoint, data_dir, tmp_path):
    run = runs_of(checkpoint, data_dir)[1]
    found = probe(probe_config(run), tmp_path)
    evaluator = FewShot(
        train_split="train", test_split="test[:100]", dataset="digits", data_dir=data_dir, resolution=(8, 8),
        shots=(1, 5), seeds=(1,), batch_size=128,
    )  # fmt: skip
    evaluator.open()
    mesh = partition.make_mesh(1)
    loaded = load(checkpoint, stored_pixels=True, channels=3)
    params = partition.put_tree(loaded.params, partition.param_sharding(loaded.params, mesh))
    expected = evaluator.bind(Bound(make_forward(loaded.module), None, mesh, 0))(params).values
    assert found["scores"] == {"1shot": expected["1shot"], "5shot": expected["5shot"]}
    assert found["scores"]["5shot"] > 0.3  # chance is 0.1
    assert (found["resolution"], found["num_examples"], found["class_names"][3]) == ((8, 8), 100, "3")


@pytest.mark.slow
def test_features_are_computed_once_and_shared_by_all_seeds(checkpoint, data_dir, tmp_path, monkeypatch):
    calls = []
    compute = probing._compute
    monkeypatch.setattr(probing, "_compute", lambda *args: calls.append(1) or compute(*args))
    scores = [probe(probe_config(run), tmp_path)["scores"] for run in runs_of(checkpoint, data_dir)]
    assert len(calls) == 1
    assert len({json.dumps(s) for s in scores}) == 3  # other examples each
    assert len(list(tmp_path.iterdir())) == 1
    assert probe(probe_config(runs_of(checkpoint, data_dir)[0]), tmp_path)["scores"] == scores[0]
    probe(probe_config(runs_of(checkpoint, data_dir, resolution="16")[0]), tmp_path)
    assert len(calls) == 2  # another resolution has other features


@pytest.mark.slow
def test_a_class_that_is_smaller_than_asked_gives_what_it_has(checkpoint, data_dir, tmp_path):
    found = probe(probe_config(runs_of(checkpoint, data_dir, "5+142+1000")[0]), tmp_path)
    source = open_source("digits", "train", data_dir)
    labels = [source.read(i)[1] for i in range(1437)]
    counts = np.bincount(labels)
    assert found["short"] == {142: sum(counts < 142), 1000: 10}
    assert 0 < found["short"][142] < 10
    everything = probe(probe_config(runs_of(checkpoint, data_dir, str(max(counts)))[0]), tmp_path)
    # 1,000 of each class are all images there are.
    assert found["scores"]["1000shot"] == everything["scores"][f"{max(counts)}shot"] > found["scores"]["5shot"]


def test_a_misspelt_key_of_a_probe_is_an_error(checkpoint, data_dir):
    run = runs_of(checkpoint, data_dir)[0]
    with pytest.raises(UserError, match=r"config\.resolutio does not exist; did you mean 'resolution'\?"):
        probe_config(dataclasses.replace(run, overrides=(("resolutio", "8"),)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("sets=dtd", r"give init=PATH"),
        ("init=x.npz,sets=dtt", r"few-shot set 'dtt' is none of the table; did you mean 'dtd'\?"),
        ("init=x.npz,shots=5+1", r"shots=5\+1: expected numbers of examples per class, ascending"),
    ],
)
def test_few_shot_arguments_are_checked(arguments, message):
    with pytest.raises(UserError, match=message):
        load_grid(f"configs/fewshot.py:{arguments}", [])


# Evaluators of frozen features as runs of a sweep: configs/linear.py


@pytest.mark.slow
def test_a_linear_probe_scores_what_scikit_learn_scores_on_the_same_features(checkpoint, data_dir, tmp_path):
    overrides = [("data_dir", data_dir), ("test_split", "test[:100]"), ("evaluator.recipe", "fewshot")]
    grid = load_grid(f"configs/linear.py:init={checkpoint},sets=digits", [*overrides, ("evaluator.l2_reg", "30.0")])
    config = probe_config(grid.final_runs("digits", {})[0])
    with jax.numpy_dtype_promotion("standard"):
        found = probe(config, tmp_path)
    sources = [open_source("digits", split, data_dir) for split in ("train", "test[:100]")]
    features = probing._compute(config, sources)
    mean, std = features["train_x"].mean(axis=0), np.sqrt(features["train_x"].var(axis=0) + 1e-6)
    x, test_x = (features["train_x"] - mean) / std, (features["test_x"] - mean) / std
    model = LogisticRegression(C=1 / 30, max_iter=5000, tol=1e-6).fit(x, features["train_y"])
    assert found["scores"]["top1"] == pytest.approx(
        model.score(test_x, features["test_y"]), abs=0.011
    )  # one image of 100
    assert found["scores"]["train_top1"] == pytest.approx(model.score(x, features["train_y"]), abs=2e-3)
    assert found["scores"]["top1"] > 0.5  # chance is 0.1
    assert (found["num_examples"], found["resolution"], len(found["class_names"])) == (100, (8, 8), 10)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("sets=cifar10", "a probe needs a checkpoint: give init=PATH"),
        ("init=x.npz,probe=linaer", "probe=linaer: did you mean 'linear'"),
        ("init=x.npz,layers=8", "layers=8: choose pool=token or pool=mean"),
        ("init=x.npz,layers=last", "layers=last: expected numbers of blocks, 0 for the last tokens"),
    ],
)
def test_arguments_of_the_linear_probe_are_checked(arguments, message):
    with pytest.raises(UserError, match=message):
        load_grid(f"configs/linear.py:{arguments}", [])


def test_a_probe_of_several_layers_is_a_task_for_each():
    grid = load_grid("configs/linear.py:init=x.npz,probe=knn,sets=cifar10+cifar100,layers=6+8,pool=mean", [])
    assert [task.name for task in grid.sweep.tasks] == [
        "cifar10-block6",
        "cifar10-block8",
        "cifar100-block6",
        "cifar100-block8",
    ]
    section = probe_config(grid.final_runs("cifar100-block8", {})[0]).evaluator
    assert (section.name, section.layer, section.pool, section.neighbours) == ("knn", 8, "mean", (10, 20, 100, 200))
