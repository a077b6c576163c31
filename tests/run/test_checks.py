"""What a config and its data must agree on; tests/run/test_job.py has the same mistakes in whole configs."""

from types import SimpleNamespace

import pytest

from vit_jax.run.checks import check_best, check_target
from vit_jax.targets import ClassId, ClassSet, Values
from vit_jax.train.objectives import Objective, regression, sigmoid_cross_entropy, softmax_cross_entropy
from vit_jax.types import DatasetSpec, UserError


@pytest.mark.parametrize(
    ("objective", "suits"),
    [
        (softmax_cross_entropy(), (ClassId,)),
        (sigmoid_cross_entropy(), (ClassId, ClassSet)),
        (regression(), (Values,)),
        (Objective(lambda outputs, batch: {}), (ClassId, ClassSet, Values)),  # a user's own says nothing
    ],
)
def test_each_loss_has_its_kinds_of_labels(objective, suits):
    config = SimpleNamespace(objective=SimpleNamespace(name="mine"))
    for kind in (ClassId, ClassSet, Values):
        spec = DatasetSpec("cats", "train", 5, kind(3), ("a", "b", "c"), (None, None, 3))
        if kind in suits:
            check_target(config, objective, spec)
        else:
            with pytest.raises(
                UserError, match=r"config.objective.name=mine reads .*, and cats has (a|numbers).*; choose"
            ):
                check_target(config, objective, spec)


def test_an_early_stop_needs_a_metric_that_is_measured_and_kept():
    def check(best, keep_best, patience):
        checkpoint = SimpleNamespace(best_metric=best, keep_best=keep_best)
        train = SimpleNamespace(patience=patience)
        check_best(SimpleNamespace(checkpoint=checkpoint, train=train, evals={"dev": {}}))

    check("", 0, 0)
    check("eval/dev/top1", 1, 3)
    for best, keep_best in (("", 0), ("eval/dev/top1", 0)):
        with pytest.raises(UserError, match=r"train.patience=3 waits for a better checkpoint.best_metric"):
            check(best, keep_best, 3)
    with pytest.raises(UserError, match=r"expected one of eval/dev/METRIC"):
        check("eval/tset/top1", 1, 0)
