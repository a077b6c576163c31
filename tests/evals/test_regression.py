"""Errors of numbers against scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from vit_jax import partition
from vit_jax.evals.base import Bound
from vit_jax.evals.regression import Regression
from vit_jax.train.objectives import regression
from vit_jax.types import UserError


def write(path, columns, numbers):
    files = sorted((path / "test").glob("*/*.png"))
    lines = [f"{file.relative_to(path)},{','.join(map(str, row))}" for file, row in zip(files, numbers, strict=True)]
    (path / "list.csv").write_text("\n".join([f"path,{columns}", *lines]))
    return str(path / "list.csv")


def test_figures_are_those_of_scikit_learn(folder, kernel, forward):
    path, _, (images, _) = folder
    numbers = np.random.default_rng(0).standard_normal((13, 2)).round(3)
    numbers[:, 1] = 2.5  # never varies
    place = write(path, "value:age,value:size", numbers)
    evaluator = Regression(split="train", dataset=place, resolution=(8, 8), batch_size=8)
    evaluator.open()
    scorer = evaluator.bind(Bound(forward, regression(), partition.make_mesh(), 2))
    found = scorer({"kernel": kernel[:, :2]})
    order = np.argsort(found.examples["label"][:, 0])
    predicted = (images.reshape(13, -1) / 127.5 - 1) @ kernel[:, :2].astype(np.float64)
    predicted = predicted[np.argsort(numbers[:, 0])]
    numbers = numbers[np.argsort(numbers[:, 0])]
    np.testing.assert_allclose(found.examples["predicted"][order], predicted, rtol=1e-4, atol=1e-5)
    expected = {
        "r2": r2_score(numbers, predicted),
        "mse": mean_squared_error(numbers, predicted),
        "mae": mean_absolute_error(numbers, predicted),
    }
    for i, name in enumerate(("age", "size")):
        expected[f"r2_{name}"] = r2_score(numbers[:, i], predicted[:, i])
        expected[f"mse_{name}"] = mean_squared_error(numbers[:, i], predicted[:, i])
        expected[f"mae_{name}"] = mean_absolute_error(numbers[:, i], predicted[:, i])
    assert found.values == pytest.approx(expected | {"num_examples": 13}, rel=1e-4)


def test_classes_and_another_number_of_outputs_are_refused(folder, kernel, forward):
    with pytest.raises(UserError, match=r"have classes; score it with an evaluator named classification"):
        Regression(split="test", dataset=str(folder[0])).open()
    place = write(folder[0], "value:x", np.zeros((13, 1)))
    evaluator = Regression(split="train", dataset=place, resolution=(8, 8), batch_size=8)
    evaluator.open()
    with pytest.raises(UserError, match="has 1 numbers an image and the model predicts 2"):
        evaluator.bind(Bound(forward, regression(), partition.make_mesh(), 2))
