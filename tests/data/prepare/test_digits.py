"""The digits that ship with scikit-learn: pixels, split, and first use."""

import subprocess
import sys
from collections import Counter

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

from vit_jax.data.open import open_source


def contents(split, tfds_dir):
    source = open_source("digits", split, tfds_dir)
    examples = [source.read(index) for index in range(len(source))]
    return Counter((cv2.imdecode(np.frombuffer(data, np.uint8), -1).tobytes(), label) for data, label, _ in examples)


@pytest.mark.slow
def test_digits_are_scikit_learns_scaled_to_255_and_split_by_the_documented_rule(tfds_dir):
    digits = load_digits()
    pixels = np.floor(digits.images * 255 / 16 + 0.5).astype(np.uint8)
    order = sorted(range(1797), key=lambda i: (digits.target[i], i))
    expected_test = {i for place, i in enumerate(order) if place % 5 == 0}
    expected = {"train": Counter(), "test": Counter()}
    for i in range(1797):
        expected["test" if i in expected_test else "train"][pixels[i].tobytes(), int(digits.target[i])] += 1
    assert expected["test"].total() == 360
    for split in ("train", "test"):
        assert contents(split, tfds_dir) == expected[split]


@pytest.mark.slow
def test_digits_are_stratified_and_their_splits_disjoint(tfds_dir):
    train, test = contents("train", tfds_dir), contents("test", tfds_dir)
    assert not train & test
    total = Counter(load_digits().target.tolist())
    per_class = Counter()
    for (_, label), count in test.items():
        per_class[label] += count
    assert all(abs(per_class[label] - total[label] / 5) <= 1 for label in range(10))


def test_digits_spec(tfds_dir):
    spec = open_source("digits", "train", tfds_dir).spec
    assert (spec.name, spec.split, spec.num_examples, spec.num_classes) == ("digits", "train", 1437, 10)
    assert spec.image_shape == (8, 8, 1)
    assert spec.class_names == tuple("0123456789")


@pytest.mark.slow
def test_two_processes_may_prepare_digits_at_once(tmp_path):
    script = (
        "import sys; from vit_jax.data.open import open_source; print(len(open_source('digits', 'test', sys.argv[1])))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    results = [process.communicate(timeout=120) for process in processes]
    assert [out.split() for out, _ in results] == [[b"360"]] * 2, results
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]


def test_first_use_prepares_digits_without_a_word(tmp_path, capfd):
    assert len(open_source("digits", "test", str(tmp_path))) == 360
    assert capfd.readouterr() == ("", "")
