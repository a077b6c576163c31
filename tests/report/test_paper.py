"""The paper's tables, as printed: their sums, their shapes, and the names by which a task finds its row."""

import pytest

from vit_jax.data.vtab.tasks import TASKS
from vit_jax.report import paper


def test_table_9_has_the_benchmarks_tasks_and_groups_in_its_order():
    ours = [(task.group.capitalize(), task.title) for task in TASKS.values()]
    assert ours == [(group, title) for group, titles in paper.TABLE_9_COLUMNS for title in titles]


@pytest.mark.parametrize("model", paper.TABLE_9)
def test_the_printed_mean_of_table_9_is_that_of_its_19_figures(model):
    *parts, printed = paper.TABLE_9[model]
    figures = [figure for part in parts for figure in part]
    assert len(figures) == 19
    assert sum(figures) / 19 == pytest.approx(printed, abs=0.051)
    number = paper.TABLE_2_MODELS.index(model)
    assert paper.TABLE_2[paper.VTAB_ROW][number] == pytest.approx(printed, abs=0.051)


def test_table_5_has_six_data_sets_and_five_models_for_each_pre_training_set():
    assert [len(sets) for sets in paper.TABLE_5.values()] == [6, 6, 6]
    assert {len(figures) for sets in paper.TABLE_5.values() for figures in sets.values()} == {5}
    assert paper.TABLE_5["ImageNet-21k"]["CIFAR-10"][0] == 98.95
    assert paper.TABLE_5["ImageNet"]["CIFAR-10"][4] is None  # H/14 was not pre-trained on ImageNet
