"""An evaluator bound to a model: each binding scores its own model, on the evaluator's one data set."""

import jax.numpy as jnp
import pytest

from vit_jax import partition
from vit_jax.data.open import open_source
from vit_jax.evals.base import Bound
from vit_jax.evals.classification import Classification
from vit_jax.evals.fewshot import FewShot
from vit_jax.evals.scorecard import Scorecard
from vit_jax.models.build import normalize
from vit_jax.train.objectives import softmax_cross_entropy
from vit_jax.types import DatasetSpec, Outputs, UserError

EVALUATORS = {
    "classification": (Classification, {"split": "test"}),
    "scorecard": (Scorecard, {"split": "test", "bootstrap": 0}),
    "fewshot": (FewShot, {"train_split": "train", "test_split": "test", "shots": (1,), "seeds": (0,)}),
}


def opened(folder, kind, batch_size=8):
    make, options = EVALUATORS[kind]
    evaluator = make(dataset=str(folder[0]), resolution=(8, 8), batch_size=batch_size, **options)
    evaluator.open()
    return evaluator


def bound(forward):
    return Bound(forward, softmax_cross_entropy(), partition.make_mesh(), 7)


def constant(label):
    """The model that answers `label` to every image."""

    def forward(params, images):
        return Outputs(None, None, None, jnp.zeros((images.shape[0], 7)).at[:, label].set(1.0))

    return forward


@pytest.mark.parametrize("kind", ["classification", "scorecard"])
def test_two_models_bound_to_one_evaluator_are_scored_each_by_itself(folder, kind):
    evaluator = opened(folder, kind)
    first, second = (evaluator.bind(bound(constant(label))) for label in (0, 6))
    scores = [scorer({}).values["top1"] for scorer in (first, second, first)]
    assert scores == pytest.approx(
        [3 / 13, 1 / 13, 3 / 13]
    )  # 3 of the 13 test images are of class 0, and 1 is of class 6


def test_few_shot_features_are_those_of_the_model_that_is_bound(folder, forward):
    def last_pixels(params, images):
        x = normalize(images).reshape(images.shape[0], -1)
        return Outputs(None, None, x[:, -12:], None)

    params = {"kernel": jnp.zeros((192, 7))}
    evaluator = opened(folder, "fewshot")
    scores = [evaluator.bind(bound(model))(params).values["1shot"] for model in (forward, last_pixels)]
    alone = [opened(folder, "fewshot").bind(bound(model))(params).values["1shot"] for model in (forward, last_pixels)]
    assert scores == alone
    assert scores[0] != scores[1]


@pytest.mark.parametrize("kind", EVALUATORS)
def test_a_batch_that_does_not_divide_over_the_devices_is_refused_when_the_model_is_bound(folder, forward, kind):
    with pytest.raises(UserError, match="batch_size=12 is not divisible by 8 devices"):
        opened(folder, kind, batch_size=12).bind(bound(forward))


def test_examples_come_with_the_scores_in_the_order_of_the_split(folder, kernel, forward):
    values, examples, _ = opened(folder, "classification").bind(bound(forward))({"kernel": jnp.asarray(kernel)})
    assert examples["index"].tolist() == list(range(13))
    source = open_source(str(folder[0]), "test")
    assert examples["label"].tolist() == [source.read(index)[1] for index in range(13)]
    assert (examples["label"] == examples["predicted"]).mean() == pytest.approx(values["top1"])


def test_opening_says_what_it_will_read(folder):
    (spec,) = Classification(split="test", dataset=str(folder[0])).open()
    assert isinstance(spec, DatasetSpec)
    assert (spec.split, spec.num_examples, spec.num_classes) == ("test", 13, 7)


def test_opening_a_missing_split_fails_before_the_run(folder):
    with pytest.raises(UserError, match="validation"):
        Classification(split="validation", dataset=str(folder[0])).open()
