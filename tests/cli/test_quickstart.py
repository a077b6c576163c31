"""The quickstart's table: what it says of accuracy, and how sure that is."""

import pytest
from scipy import stats

from vit_jax.cli.quickstart import interval, table


@pytest.mark.parametrize(("hits", "count"), [(1052, 1079), (0, 10), (10, 10), (540, 1079)])
def test_the_interval_is_wilsons(hits, count):
    expected = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert interval(hits / count, count) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_the_table_gives_the_interval_beside_top_1():
    scores = {f"{kind}/fewshot/{k}shot": 0.9 for kind in ("eval", "eval_average") for k in (1, 5, 10)}
    scores |= {"eval/digits/top1": 0.975, "eval_average/digits/top1": 0.97, "eval/digits/num_examples": 1079.0}
    shown = table({"fine-tuned, 32x32": scores})
    assert "accuracy on 1,079 held-out images" in shown
    # Wilson: 0.975 of 1,079 is 96.4 to 98.3%.
    assert "97.5% │ 96.4 to 98.3%" in shown
