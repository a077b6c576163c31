"""Numbers on their way from result.json into the paper's tables: every expected value is worked out here, or the paper's."""

import pytest
from folders import (
    OURS,
    cell,
    result,
    tables,
    transfer_sweep,
    write_run,
    write_sweep,
    write_vtab,
)

from vit_jax.report import paper


def test_a_whole_vtab_sweep_has_its_means_and_their_spread(tmp_path):
    write_vtab(tmp_path)  # 0.50 + 0.02 * place + 0.01 * seed
    table = tables(tmp_path)["table9"]
    assert cell(table, OURS, "Caltech101").text == "51.0 ± 1.0"  # 50, 51, 52
    assert cell(table, OURS, "sNORB-Elev").text == "87.0 ± 1.0"  # place 18: 86, 87, 88
    assert cell(table, OURS, "mean Natural").text == "57.0 ± 1.0"  # places 0 to 6: 51 + 2 * 3
    assert cell(table, OURS, "mean Specialized").text == "68.0 ± 1.0"  # places 7 to 10: 51 + 2 * 8.5
    assert cell(table, OURS, "mean Structured").text == "80.0 ± 1.0"  # places 11 to 18: 51 + 2 * 14.5
    assert cell(table, OURS, "mean All 19").text == "69.0 ± 1.0"  # 51 + 2 * 9
    assert cell(table, "ViT-H/14 (JFT)", "CIFAR-100").text == "85.5"
    assert cell(table, "ViT-H/14 (JFT)", "mean Natural").text == "86.7"  # 606.8 / 7
    row = tables(tmp_path)["table2"]
    assert cell(row, "VTAB (19 tasks)", OURS).text == "69.00 ± 1.00"
    assert cell(row, "VTAB (19 tasks)", "BiT-L (ResNet152x4)").text == "76.29"
    assert not any("mean of" in note for note in (*table.notes, *row.notes))


def test_an_unfinished_number_is_never_the_best(tmp_path):
    write_vtab(tmp_path, score=lambda number, seed: 0.999, leave_out={(0, 2)})
    table = tables(tmp_path)["table9"]
    assert cell(table, OURS, "Caltech101").text == "99.9 ± 0.0†"
    assert not cell(table, OURS, "Caltech101").best
    assert cell(table, "ViT-L/16 (JFT)", "Caltech101").best  # 95.4, of the finished ones
    assert cell(table, OURS, "CIFAR-100").best


def test_two_sweeps_share_a_table_with_their_difference_and_its_best_numbers_bold(tmp_path):
    write_vtab(tmp_path / "a", label="A")
    write_vtab(tmp_path / "b", label="B", score=lambda number, seed: 0.97 + 0.01 * seed, leave_out={3})
    table = tables(tmp_path / "a", tmp_path / "b")["table9"]
    assert [head.title for head in table.rows[:3]] == ["A", "B", "B less A"]
    assert cell(table, "B less A", "Caltech101").text == "+47.0"
    assert cell(table, "B less A", "Flowers102").value is None  # B has none
    assert cell(table, "B less A", "mean All 19").value is None
    assert cell(table, "B less A", "mean Structured").text == "+18.0"  # 98 - 80
    assert cell(table, "B", "Caltech101").best
    assert not cell(table, "ViT-L/16 (JFT)", "Caltech101").best  # 95.4
    assert cell(table, "ViT-H/14 (JFT)", "Flowers102").best  # 99.7, as has L/16: both are
    assert cell(table, "ViT-L/16 (JFT)", "Flowers102").best
    assert not any(c.best for c in table.cells[2])


def test_transfer_stands_in_tables_2_and_5_and_other_data_sets_in_one_of_their_own(tmp_path):
    sweep = transfer_sweep()
    write_sweep(tmp_path, sweep)
    for number, task in enumerate(sweep.tasks):
        for seed in sweep.seeds:
            write_run(tmp_path, result(task.name, 0.9 + 0.02 * number + 0.001 * seed, seed=seed))
    found = tables(tmp_path)
    assert list(found) == ["table2", "table5", "table-others"]
    table = found["table2"]
    assert [head.title for head in table.rows] == [title for title in paper.TABLE_2 if title != paper.VTAB_ROW]
    assert cell(table, "CIFAR-10", OURS).text == "90.10 ± 0.10"
    assert cell(table, "Oxford-IIIT Pets", OURS).text == "92.10 ± 0.10"  # the sweep's title is Pets
    assert cell(table, "Oxford-IIIT Pets", "ViT-H/14 (JFT)").best
    assert cell(table, "ImageNet", OURS).value is None
    assert cell(found["table-others"], OURS, "Digits").text == "94.10 ± 0.10"
    block = [
        line for head, line in zip(found["table5"].rows, found["table5"].cells, strict=True) if "21k" in head.group
    ]
    assert [c.text for c in block[0]] == ["90.10 ± 0.10", "98.95", "98.79", "99.16", "99.13", "99.27"]


def test_few_shot_has_sets_down_shots_across_and_the_spread_of_the_draws(tmp_path):
    sweep = transfer_sweep(titles=("ImageNet", "Pets"), layout="fewshot", metric="5shot", candidates={}, seeds=(0,))
    write_sweep(tmp_path, sweep)
    scores = {"1shot": 0.2, "5shot": 0.4, "5shot_seed0": 0.38, "5shot_seed1": 0.42}
    for task in sweep.tasks:
        write_run(tmp_path, result(task.name, 0, candidate={}, scores=scores, metric="5shot"))
    table = tables(tmp_path)["table-fewshot"]
    assert [head.title for head in table.columns] == ["1-shot", "5-shot"]
    assert [c.text for c in table.cells[0]] == ["20.00", "40.00 ± 2.83"]  # 2 * sqrt(2)
    (row,) = [n for n, head in enumerate(table.rows) if head.title == "ViT-B/16, 1-D position embedding"]
    assert table.rows[row].group == "ImageNet"
    assert [c.text for c in table.cells[row]] == ["–", "64.21"]  # noqa: RUF001
    assert [head.title for head in table.rows if head.group == "Pets"] == [OURS]


def test_a_list_has_only_the_sweeps_own_numbers_and_no_mean(tmp_path):
    sweep = transfer_sweep(layout="list", titles=("Digits", "Pets"), candidates={"optim.lr": (0.01,)}, seeds=(0,))
    write_sweep(tmp_path, sweep)
    write_run(tmp_path, result("digits", 0.975))
    table = tables(tmp_path)["table-list"]
    assert [head.title for head in table.rows] == [OURS]
    assert [c.text for c in table.cells[0]] == ["97.50", "–"]  # noqa: RUF001


@pytest.mark.parametrize("masked", ["patches", "mean_colour"])
def test_objectives_have_a_row_per_checkpoint_and_a_column_per_judge_beside_the_papers_figures(masked, tmp_path):
    titles = ("scratch", masked, "mae")
    for judge, metric, shift in (("fine-tuned", "top1", 0.0), ("few-shot", "5shot", 0.1)):
        shared = {"layout": "objectives", "label": judge, "metric": metric, "candidates": {}, "seeds": (0, 1)}
        sweep = transfer_sweep(titles=titles[bool(shift) :], **shared)
        (tmp_path / judge).mkdir()
        write_sweep(tmp_path / judge, sweep)
        for number, task in enumerate(sweep.tasks):
            for seed in (0, 1):
                score = 0.5 + shift + 0.01 * number + 0.02 * seed
                run = result(task.name, score, candidate={}, seed=seed, scores={metric: score}, metric=metric)
                write_run(tmp_path / judge, run)
    (table,) = tables(tmp_path / "fine-tuned", tmp_path / "few-shot").values()
    assert [head.title for head in table.rows] == list(titles)
    assert [head.title for head in table.columns] == ["fine-tuned", "few-shot", "ViT-B/16, all of ImageNet"]
    dash = "\N{EN DASH}"
    assert [[cell.text for cell in line] for line in table.cells] == [
        ["51.00 ± 1.41", dash, "77.91"],  # 1.41: half the square root of 2 squared, 0.02 between two seeds
        ["52.00 ± 1.41", "61.00 ± 1.41", "79.90"],
        ["53.00 ± 1.41", "62.00 ± 1.41", dash],
    ]
    assert [line[0].best for line in table.cells] == [False, False, True]
