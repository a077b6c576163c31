"""How long a run waits for a better score."""

import json
import math

from vit_jax.train.patience import Patience


def test_only_a_better_score_of_its_metric_starts_the_count_anew():
    patience = Patience("eval/dev/top1", 3)
    seen = [0.5, 0.5, 0.7, math.nan, 0.6, None, 0.7]
    over = [patience.observe({} if x is None else {"eval/dev/top1": x, "eval/other/top1": 1.0}) for x in seen]
    assert over == [False, False, False, False, False, False, True]  # 0.7, then nan, 0.6 and 0.7
    assert (patience.best, patience.stale) == (0.7, 3)


def test_without_a_limit_nothing_is_counted_or_saved():
    patience = Patience()
    assert not patience.observe({"": 1.0})
    assert (patience.to_meta(), patience.stale) == ({}, 0)


def test_the_count_survives_a_checkpoint_and_a_higher_limit_continues():
    patience = Patience("m", 2)
    assert json.loads(json.dumps(patience.to_meta())) == {"patience": {"best": None, "stale": 0}}
    for score in (0.3, 0.2, 0.1):
        patience.observe({"m": score})
    meta = json.loads(json.dumps(patience.to_meta()))
    assert Patience.resume("m", 2, meta) == patience
    assert Patience.resume("m", 2, meta).is_over
    assert not Patience.resume("m", 3, meta).is_over
    assert Patience.resume("m", 2, {}) == Patience("m", 2)
