"""A scorecard of a whole split, on one and eight devices and on two processes, against numpy."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import config as configs
from vit_jax import partition
from vit_jax.data.image.recipes import make_transform
from vit_jax.data.source import Source
from vit_jax.data.stream.reader import BatchReader
from vit_jax.evals import scorecard, split
from vit_jax.evals.base import Bound
from vit_jax.evals.scorecard import Scorecard
from vit_jax.run.job import build_job
from vit_jax.targets import ClassId, ClassSet
from vit_jax.types import DatasetSpec, UserError

ROOT = Path(__file__).resolve().parents[2]


def evaluate(folder, kernel, forward, *, devices=8, **options):
    settings = {"split": "test", "dataset": str(folder), "resolution": (8, 8), "batch_size": 8, **options}
    evaluator = Scorecard(**settings)
    evaluator.open()
    mesh = partition.make_mesh(devices=jax.devices()[:devices])
    bound = Bound(forward, None, mesh, kernel.shape[1])
    return evaluator.bind(bound)({"kernel": jnp.asarray(kernel)}).values


def probabilities(images, kernel):
    """Softmax over classes, float64."""
    x = (images.reshape(len(images), -1).astype(np.float64) - 127.5) / 127.5
    e = np.exp(x @ kernel.astype(np.float64))
    return e / e.sum(axis=1, keepdims=True)


def by_hand(p, right):
    """(top-1, top-5, nll, ece) of probabilities (n, c) and right classes, bool (n, c); rows without one are left out."""
    p, right = p[right.any(axis=1)], right[right.any(axis=1)]
    order = np.argsort(-p, axis=1)
    hits = np.take_along_axis(right, order[:, :5], axis=1)
    top1, confidence = hits[:, 0], p.max(axis=1)
    ece = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        ece += abs((top1[inside] - confidence[inside]).sum()) / len(p)
    return top1.mean(), hits.any(axis=1).mean(), -np.log((p * right).sum(axis=1)).mean(), ece


def same(scores, expected):
    found = tuple(scores[name] for name in ("top1", "top5", "nll", "ece"))
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("batch_size", "devices"), [(8, 8), (16, 8), (5, 1)])
def test_figures_are_exact_when_the_batch_does_not_divide_the_split(folder, kernel, forward, batch_size, devices):
    path, _, (images, labels) = folder
    scores = evaluate(path, kernel, forward, batch_size=batch_size, devices=devices)
    same(scores, by_hand(probabilities(images, kernel), np.eye(7, dtype=bool)[labels]))
    assert scores["num_examples"] == 13
    assert 0 <= scores["top1_low"] < scores["top1"] < scores["top1_high"] <= 1
    assert len({0.0, *(scores[name] for name in ("top1", "top5", "ece"))}) == 4  # numbers that could be wrong


def test_intervals_do_not_depend_on_devices_and_batches(folder, kernel, forward):
    one = evaluate(folder[0], kernel, forward, batch_size=13, devices=1)
    eight = evaluate(folder[0], kernel, forward)
    assert one == pytest.approx(eight, rel=1e-5)


def test_no_resamples_no_intervals(folder, kernel, forward):
    scores = evaluate(folder[0], kernel, forward, bootstrap=0)
    assert set(scores) == {"top1", "top5", "nll", "ece", "num_examples"}
    with pytest.raises(UserError, match="bootstrap must be 0"):
        evaluate(folder[0], kernel, forward, bootstrap=-1)


def test_images_that_do_not_decode_are_left_out_up_to_the_limit(folder, kernel, forward):
    path, _, (images, labels) = folder
    file = path / "test" / "class1" / "00.png"
    file.write_bytes(file.read_bytes()[:60])
    keep = np.arange(13) != 3
    scores = evaluate(path, kernel, forward, max_corrupt=1)
    same(scores, by_hand(probabilities(images[keep], kernel), np.eye(7, dtype=bool)[labels[keep]]))
    assert (scores["num_examples"], scores["num_corrupt"]) == (12, 1)
    assert "num_corrupt" not in evaluate(path, kernel, forward, dataset=str(path), split="train")
    with pytest.raises(UserError, match=r"class1/00\.png"):
        evaluate(path, kernel, forward, max_corrupt=0)


class Memory(Source):
    """A source of images in memory, with any labels."""

    def __init__(self, images, labels, classes, kind=ClassId, **spec):
        names = tuple(f"c{i}" for i in range(classes))
        self.spec = DatasetSpec("memory", "test", len(images), kind(classes), names, (8, 8, 3), **spec)
        self._images, self._labels = images, labels

    def __len__(self):
        return len(self._images)

    def read(self, index):
        return bytes([index]), self._labels[index], f"#{index}"

    def decode(self, data):
        return self._images[data[0]]


@pytest.fixture
def memory(monkeypatch, folder):
    """Makes a scorecard read these labels with the folder's test images."""

    def use(labels, **spec):
        monkeypatch.setattr(
            scorecard,
            "open_source",
            lambda *args, **kw: Memory(folder[2][0], labels, 7, **spec) if kw["multi_label"] else None,
        )

    return use


SETS = [(0,), (1, 4), (), (6, 2), (3,), (), (0, 1, 2, 3, 4, 5, 6), (2,), (5, 1), (4,), (4, 6), (), (3,)]


@pytest.mark.parametrize("devices", [1, 8])
def test_images_with_several_right_classes_and_those_with_none(folder, kernel, forward, memory, devices):
    memory(SETS, kind=ClassSet)
    right = np.zeros((13, 7), bool)
    for row, labels in enumerate(SETS):
        right[row, list(labels)] = True
    scores = evaluate("memory", kernel, forward, devices=devices)
    same(scores, by_hand(probabilities(folder[2][0], kernel), right))
    assert (scores["num_examples"], scores["num_unlabelled"]) == (10, 3)


def test_predictions_are_chosen_among_the_competing_classes(folder, kernel, forward, memory):
    competing = [1, 3, 4, 5, 6, 2]
    labels = [competing[i % 6] for i in range(13)]
    memory(labels, competing=tuple(sorted(competing)))
    p = probabilities(folder[2][0], kernel)
    p[:, 0] = 0
    restricted = p / p.sum(axis=1, keepdims=True)
    scores = evaluate("memory", kernel, forward)
    same(scores, by_hand(restricted, np.eye(7, dtype=bool)[labels]))
    memory(labels)
    assert evaluate("memory", kernel, forward)["nll"] > scores["nll"]


def test_where_five_classes_or_fewer_compete_there_is_no_top_five(folder, kernel, forward, memory):
    memory([1, 2] * 6 + [3], competing=(1, 2, 3, 4, 5))
    assert not [name for name in evaluate("memory", kernel, forward) if name.startswith("top5")]
    memory([1, 2] * 6 + [3], competing=(1, 2, 3, 4, 5, 6))
    assert {"top5", "top5_low", "top5_high"} <= set(evaluate("memory", kernel, forward))


def test_a_label_outside_the_competing_classes_is_an_error(kernel, forward, memory):
    memory([1] * 12 + [0], competing=(1, 2))
    with pytest.raises(UserError, match="1 image labelled with classes that are not among the 2 that compete"):
        evaluate("memory", kernel, forward)


def test_no_labels_at_all_are_an_error(kernel, forward, memory):
    memory([()] * 13, kind=ClassSet)
    with pytest.raises(UserError, match="none of its 13 images has a label"):
        evaluate("memory", kernel, forward)


@pytest.mark.parametrize("classes", [6, 8])
def test_a_model_with_other_classes_is_refused(folder, forward, classes):
    with pytest.raises(UserError, match=f"has 7 classes and the model scores {classes}"):
        evaluate(folder[0], np.zeros((192, classes), np.float32), forward)


def test_a_run_refuses_data_of_other_classes_before_it_starts(folder, tmp_path):
    path = str(folder[0])
    config = configs.load(f"{ROOT / 'configs' / 'pretrain.py'}:variant=Nano/4,dataset=digits")
    config.data.data_dir = str(tmp_path / "tfds")
    config.evals.card = {"name": "scorecard", "dataset": path, "split": "test"}
    with pytest.raises(UserError, match=r"config.evals.card: .* has 7 classes and the model scores 10"):
        build_job(config)
    del config.evals["card"]
    config.evals.test.update({"dataset": "digits"})
    config.data.dataset = path
    with pytest.raises(UserError, match=r"config.evals.test: digits has 10 classes and the model scores 7"):
        build_job(config)


def test_a_batch_that_goes_missing_is_an_error_and_not_a_score(folder, kernel, forward, monkeypatch):
    whole = split.read_split

    def without_the_first(*args, **options):
        yield from list(whole(*args, **options))[1:]

    monkeypatch.setattr(split, "read_split", without_the_first)
    with pytest.raises(UserError, match="scored 5 examples of 13"):
        evaluate(folder[0], kernel, forward, max_corrupt=0)


def test_sigmoids_score_as_their_training_does(folder, kernel, forward):
    path, _, (images, labels) = folder
    x = (images.reshape(13, -1).astype(np.float64) - 127.5) / 127.5
    logits = x @ kernel.astype(np.float64)
    y = np.eye(7)[labels]
    expected = (np.log1p(np.exp(-logits)) * y + np.log1p(np.exp(logits)) * (1 - y)).sum(axis=1).mean()
    scores = evaluate(path, kernel, forward, likelihood="sigmoid")
    assert scores["nll"] == pytest.approx(expected, rel=1e-5)


def test_training_batches_hold_one_label_an_image_as_ever(folder):
    source = Memory(folder[2][0], list(folder[2][1]), 7)
    batch = BatchReader(source, make_transform("eval", (8, 8)), 0, True, 0)(np.array([[0, 2], [0, 5]])).batch
    assert (batch.target.dtype, batch.target.tolist()) == (np.int32, folder[2][1][[2, 5]].tolist())


PROCESS = """
import json, sys
sys.path[:0] = [{root!r}, {here!r}]
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
from vit_jax import partition, peers
import numpy as np
from conftest import forward
from vit_jax.evals.base import Bound
from vit_jax.evals.scorecard import Scorecard
with peers.joined({address!r}, 2, int(sys.argv[1])):
    mesh = partition.make_mesh()
    assert mesh.size == 4
    evaluator = Scorecard(split="test", dataset={folder!r}, resolution=(8, 8), batch_size=8)
    evaluator.open()
    params = {{"kernel": np.load({kernel!r})}}
    params = partition.put_tree(params, partition.param_sharding(params, mesh))
    print(json.dumps(evaluator.bind(Bound(forward, None, mesh, 7))(params).values))
"""


@pytest.mark.slow
def test_two_processes_hold_the_same_figures_as_one(folder, kernel, forward, tmp_path):
    np.save(tmp_path / "kernel.npy", kernel)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    program = PROCESS.format(
        root=str(ROOT),
        here=str(Path(__file__).parent),
        address=address,
        folder=str(folder[0]),
        kernel=str(tmp_path / "kernel.npy"),
    )
    command = [sys.executable, "-c", program]
    both = [
        subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        for i in range(2)
    ]
    ended = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    found = [json.loads(out.splitlines()[-1]) for out, _ in ended]
    assert found[0] == found[1]
    assert found[0] == pytest.approx(evaluate(folder[0], kernel, forward), rel=1e-5)
