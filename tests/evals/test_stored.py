"""Shards of features: written whole, read again, and probed as the evaluators probe."""

import dataclasses

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from vit_jax.evals import stored
from vit_jax.evals.fewshot import FewShot
from vit_jax.evals.stored import DESCRIPTION, Stored, probe, read_features, read_shard, shard_path, write_shard
from vit_jax.types import UserError


def made(n, seed, rank=None, **description):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n).astype(np.int32)
    features = (rng.standard_normal((n, 4)) + 2 * np.eye(3, 4)[labels]).astype(np.float32)
    facts = {"fingerprint": [], "layer": "pooled", "pool": "none", "classes": ["a", "b", "c"]} | description
    return Stored(features, labels, [f"{i}.png" for i in range(n)], np.arange(n), rank, facts)


@pytest.mark.parametrize("format", ["safetensors", "npz"])
def test_a_shard_is_read_as_it_was_written(tmp_path, format):
    path = shard_path(tmp_path, {"num_examples": 9, "shard_size": 4, "format": format}, 1)
    assert path.name == f"features-00001-of-00003.{format}"
    arrays = {
        "features": np.eye(2, 3, dtype=np.float16),
        "index": np.array([4, 6]),
        "labels": np.array([1, 0], np.int32),
    }
    write_shard(path, arrays, ["é.jpg", "b c.jpg"])
    found, ids = read_shard(path)
    assert ids == ["é.jpg", "b c.jpg"]
    assert {name: x.dtype for name, x in found.items()} == {name: x.dtype for name, x in arrays.items()}
    for name, x in arrays.items():
        np.testing.assert_array_equal(found[name], x)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match=r"is damaged .*delete it, and run the command that wrote it again"):
        read_shard(path)


def test_a_shard_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        write_shard(tmp_path / "features-00000-of-00001.safetensors", {"features": np.zeros((1, 1))}, ["a"])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected a folder that `vit_jax features` wrote"):
        read_features(tmp_path)
    (tmp_path / DESCRIPTION).write_text('{"num_examples": 3}')
    with pytest.raises(UserError, match="is damaged"):
        read_features(tmp_path)


@pytest.mark.slow
def test_probes_of_stored_features_score_as_scikit_learn_and_the_evaluators_do():
    train, test = made(60, 0), made(30, 1)
    unit = [x.features / np.linalg.norm(x.features, axis=1, keepdims=True) for x in (train, test)]
    model = KNeighborsClassifier(1).fit(unit[0], train.labels)
    scores = probe("knn", train, test, neighbours=(1,)).values
    assert scores == {"1nn": pytest.approx(model.score(unit[1], test.labels)), "num_examples": 30}
    assert probe("linear", train, test).values["top1"] > 0.6
    drawn = {}
    for rank in (None, np.arange(60)[::-1]):  # few-shot examples are drawn in the order in which TFDS reads
        found = probe("fewshot", made(60, 0, rank), test, shots=(2,), seeds=(0,)).values
        evaluator = FewShot(train_split="", test_split="", shots=(2,), seeds=(0,))
        evaluator._sources = [stored._Rows(made(60, 0, rank))]
        assert found == evaluator.score((train.features, train.labels), (test.features, test.labels), None).values
        drawn[rank is None] = found["2shot"]
    assert drawn[True] != drawn[False]


def test_features_that_cannot_be_probed_are_refused():
    train, test = made(6, 0), made(3, 1)
    with pytest.raises(UserError, match="kind is 'svm'; expected fewshot, knn, linear"):
        probe("svm", train, test)
    with pytest.raises(UserError, match="the test features have no class for each example"):
        probe("knn", train, dataclasses.replace(test, labels=None))
    with pytest.raises(UserError, match="a vector per token; write them with --pool=mean"):
        probe("knn", dataclasses.replace(train, features=np.zeros((6, 2, 4))), test)
    with pytest.raises(UserError, match="the features are of different models or layers"):
        probe("knn", train, made(3, 1, layer="tokens"))
    with pytest.raises(UserError, match=r"the probe knn has no such option .*neighbors"):
        probe("knn", train, test, neighbors=(1,))
