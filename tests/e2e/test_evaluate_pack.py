"""`vit_jax evaluate --pack=imagenet` on generated data of the real structure, against a model in numpy and hand rules."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import generated
import numpy as np
import numpy_vit
import objectnet_folder
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from vit_jax.cli import evaluate as program
from vit_jax.data.formats.imagenet import COMPETING
from vit_jax.data.open import open_source

ROOT = Path(__file__).resolve().parents[2]
SIDE = 24  # what the generated images have, so that nothing is resized
WORDNET_IDS = Path(tfds.__path__[0], "datasets/imagenet2012/labels.txt").read_text().split()
NAMES = [f"class {i}" for i in range(1000)]
TITLES = {"alarm_clock": "Alarm clock", "banana": "Banana", "tie": "Tie"}


def score(*words):
    """Runs the program in a process of its own."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-m", "vit_jax", "evaluate", *words],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs the program in this process: (exit code, standard output, standard error)."""
    monkeypatch.setattr(program, "set_up_process", lambda: None)

    def call(*words):
        return program.main([*words]), *capsys.readouterr()

    return call


def best_of(params, image, among=range(1000)):
    """The model's choice among some classes for an image of SIDE pixels."""
    logits = numpy_vit.forward(params, image[None])["logits"][0]
    return max(among, key=lambda c: logits[c])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(path, parameters) of a tiny model of 1,000 classes."""
    params = numpy_vit.draw_params(patch=(8, 8), grid=(3, 3), d=8, heads=2, classes=1000)
    path = tmp_path_factory.mktemp("model") / "tiny.npz"
    np.savez(path, **params)
    return path, params


@pytest.fixture(scope="module")
def data(tmp_path_factory, model):
    """Six of the seven sets; no ImageNet V2. Of every third image the model's choice is (among) the right."""
    folder, params = tmp_path_factory.mktemp("pack"), model[1]
    number = {wordnet_id: c for c, wordnet_id in enumerate(WORDNET_IDS)}

    def amend(name):
        def change(example, split, index):
            rng = np.random.default_rng([index, len(name)])
            among = [number[w] for w in COMPETING[name].split()] if name in COMPETING else range(1000)
            best = best_of(params, np.asarray(PIL.Image.open(io.BytesIO(example["image"].getvalue()))), among)
            if name == "imagenet2012_real":
                example["real_label"] = [int(c) for c in rng.choice(1000, index % 4, replace=False)]
                if index % 3 == 0 and index % 4:
                    example["real_label"][-1] = best
            else:
                example["label"] = best if index % 3 == 0 else int(rng.choice(among))

        return change

    for name, split in {
        "imagenet2012": "validation",
        "imagenet2012_real": "validation",
        "imagenet_a": "test",
        "imagenet_r": "test",
        "imagenet_sketch": "test",
    }.items():
        generated.prepare(name, folder, {split: 21}, amend(name))
    # 30 pixels less 2 at each side are 26, which is 16/15 of 24 rounded; the middle 24 of them are scored.
    images = {"alarm_clock": 6, "banana": 5, "tie": 3}
    drawn = objectnet_folder.write(folder / "draft", images, TITLES, {}, NAMES)
    best = [best_of(params, drawn[f"images/alarm_clock/000{i}.png"][2:-2, 2:-2]) for i in range(2)]
    right = {"Alarm clock": f"{NAMES[best[0]]}; {NAMES[best[1]]}", "Banana": "class 954"}
    objectnet_folder.write(folder / "objectnet-1.0", images, TITLES, right, NAMES)
    return folder


def expected(params, dataset, split, data, competing=None, border=0):
    """(top1, top5, nll, images) by the rules, from the numpy model's float64 scores."""
    source = open_source(dataset, split, str(data), multi_label=True)
    images, sets = [], []
    for i in range(len(source)):
        stored, label, _ = source.read(i)
        image = np.asarray(PIL.Image.open(io.BytesIO(stored)).convert("RGB"))
        images.append(image[border : len(image) - border, border : len(image) - border] if border else image)
        sets.append({label} if isinstance(label, int) else set(label))
    assert images[0].shape == (SIDE, SIDE, 3)
    logits = numpy_vit.forward(params, np.stack(images))["logits"]
    if competing is not None:
        logits[:, sorted(set(range(1000)) - set(competing))] = -np.inf
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    rows = [
        (row.argmax() in right, bool(right & set(np.argsort(-row)[:5])), -np.log(sum(row[c] for c in right)))
        for row, right in zip(p, sets, strict=True)
        if right
    ]
    return (*np.mean(np.array(rows, np.float64), axis=0), len(rows))


@pytest.fixture(scope="module")
def scored(data, model):
    """(result, standard error) of the pack; one set is missing, so the exit code is 2."""
    done = score(
        f"--model={model[0]}", "--pack=imagenet", f"--data-dir={data}", "--batch=16", "--json", "--bootstrap=50"
    )
    assert done.returncode == 2, done.stderr
    return json.loads(done.stdout), done.stderr


def test_one_command_scores_every_set_by_its_protocol_and_names_the_missing_one(scored, data, model):
    (result, err), (_, params) = scored, model
    assert set(result["sets"]) == {"val", "real", "a", "r", "sketch", "objectnet"}
    assert set(result["missing"]) == {"v2"}
    assert "vit_jax prepare imagenet_v2/matched-frequency" in result["missing"]["v2"]
    assert "v2 is left out: imagenet_v2" in err
    among = {name: [WORDNET_IDS.index(w) for w in ids.split()] for name, ids in COMPETING.items()}
    by_rule = {
        "val": expected(params, "imagenet2012", "validation", data),
        "real": expected(params, "imagenet2012_real", "validation", data),
        "a": expected(params, "imagenet_a", "test", data, among["imagenet_a"]),
        "r": expected(params, "imagenet_r", "test", data, among["imagenet_r"]),
        "sketch": expected(params, "imagenet_sketch", "test", data),
        "objectnet": expected(params, "objectnet", "test", data, border=3),
    }
    for name, values in by_rule.items():
        found = result["sets"][name]
        assert tuple(found[key] for key in ("top1", "top5", "nll", "num_examples")) == pytest.approx(
            values, rel=1e-4
        ), name
        assert 0 < found["top1"] < 1
        assert found["nll_low"] < found["nll"] < found["nll_high"]
    assert result["sets"]["real"]["num_examples"] == 21 - 6  # every fourth has no label
    assert result["sets"]["real"]["num_unlabelled"] == 6
    assert result["sets"]["objectnet"]["num_examples"] == 11


def test_the_table_has_a_line_for_each_set(scored, model, capsys):
    program.print_pack(scored[0])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{model[0]} at 24x24")
    assert lines[1].split() == ["set", "top1", "top5", "nll", "ece", "images"]
    titles = ["ImageNet", "ImageNet ReaL", "ImageNet V2", "ImageNet-A", "ImageNet-R", "ImageNet-Sketch", "ObjectNet"]
    assert [line.split("  ")[0] for line in lines[2:]] == titles
    assert lines[4].split()[2:] == ["-", "-", "-", "-", "missing"]
    assert lines[3].endswith(" 15")


def test_a_single_set_is_scored_by_its_protocol_too(call, data, model):
    words = (f"--model={model[0]}", f"--data-dir={data}", "--json", "--bootstrap=0")
    code, out, err = call(*words, "--dataset=imagenet2012_real", "--split=validation")
    assert code == 0, err
    assert json.loads(out)["num_unlabelled"] == 6


def test_a_model_of_other_classes_is_refused(call, tmp_path, data):
    np.savez(tmp_path / "seven.npz", **numpy_vit.draw_params(patch=(8, 8), grid=(3, 3), classes=7))
    code, _, err = call(f"--model={tmp_path / 'seven.npz'}", "--pack=imagenet", f"--data-dir={data}")
    assert code == 2
    assert "the imagenet pack scores the 1,000 classes of ImageNet and the model has 7" in err
    code, _, err = call(
        f"--model={tmp_path / 'seven.npz'}", "--dataset=imagenet_a", "--split=test", f"--data-dir={data}"
    )
    assert code == 2
    assert "imagenet_a has 1,000 classes and the model scores 7" in err
