"""Numbers on their way from result.json into the paper's tables: every expected value is worked out here, or the paper's."""

import csv
import dataclasses
import io
import math
import re

import pytest
from folders import (
    result,
    transfer_sweep,
    vtab_sweep,
    write_run,
    write_sweep,
    write_vtab,
)

from vit_jax.data.vtab.tasks import TASKS
from vit_jax.report import paper
from vit_jax.report.collect import collect
from vit_jax.report.formats import to_csv, to_latex, to_markdown
from vit_jax.report.layouts import make_tables
from vit_jax.report.table import Cell, Head, Table, percent


def tables(*folders):
    return {table.name: table for table in make_tables(collect(folders))}


def cell(table, row, column):
    """By the names of row and column; a mean's column is `mean NAME`."""
    names = [f"mean {head.title}" if head.kind == "mean" else head.title for head in table.columns]
    rows = [head.title for head in table.rows]
    return table.cells[rows.index(row)][names.index(column)]


OURS = "ViT-Ti/16 (ours)"


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


def test_the_spread_of_a_mean_is_that_of_the_seeds_means_not_of_the_tasks(tmp_path):
    # Seeds 0 and 1 swap 0.4 and 0.6 from task to task: each task spreads, and the mean over an even number does not.
    write_vtab(tmp_path, score=lambda number, seed: 0.6 if (number + seed) % 2 else 0.4, seeds=(0, 1))
    table = tables(tmp_path)["table9"]
    assert cell(table, OURS, "EuroSAT").text == "50.0 ± 14.1"  # sqrt(2) * 10
    assert cell(table, OURS, "mean Specialized").text == "50.0 ± 0.0"


def test_no_mean_is_printed_over_fewer_tasks_and_the_note_says_what_is_left_out(tmp_path):
    tasks = list(vtab_sweep().tasks)
    tasks[7] = dataclasses.replace(tasks[7], missing="patch_camelyon is not prepared")
    write_vtab(tmp_path, tasks=tuple(tasks), leave_out={(10, 2)})  # Retinopathy lacks its last seed
    both = tables(tmp_path)
    table = both["table9"]
    for column in ("mean Specialized", "mean All 19"):
        assert cell(table, OURS, column).value is None
    assert cell(both["table2"], "VTAB (19 tasks)", OURS).value is None
    assert cell(table, OURS, "mean Natural").text == "57.0 ± 1.0"
    assert cell(table, OURS, "Retinopathy").text == "70.5 ± 0.7†"  # 70, 71
    assert cell(table, OURS, "Retinopathy").unfinished == "2 of 3 seeds"
    notes = [note.removeprefix(f"{OURS}: ") for note in table.notes]
    assert "Camelyon has no data: patch_camelyon is not prepared" in notes
    assert "Retinopathy is unfinished: 2 of 3 seeds; in no mean." in notes
    # EuroSAT 67, Resisc45 69; and (19 * 69 - 65 - 71) / 17 = 69.117...
    assert "Specialized: mean of 2 of 4: 68.00 ± 1.00, without Camelyon, Retinopathy." in notes
    assert "all tasks: mean of 17 of 19: 69.12 ± 1.00, without Camelyon, Retinopathy." in notes


def test_an_unfinished_number_is_never_the_best(tmp_path):
    write_vtab(tmp_path, score=lambda number, seed: 0.999, leave_out={(0, 2)})
    table = tables(tmp_path)["table9"]
    assert cell(table, OURS, "Caltech101").text == "99.9 ± 0.0†"
    assert not cell(table, OURS, "Caltech101").best
    assert cell(table, "ViT-L/16 (JFT)", "Caltech101").best  # 95.4, of the finished ones
    assert cell(table, OURS, "CIFAR-100").best


def test_a_subset_of_the_tasks_is_no_vtab(tmp_path):
    write_vtab(tmp_path, tasks=vtab_sweep().tasks[:7])
    table = tables(tmp_path)["table9"]
    assert cell(table, OURS, "mean Natural").text == "57.0 ± 1.0"
    assert cell(table, OURS, "mean All 19").value is None
    assert any("not in the sweep: Camelyon, EuroSAT" in note for note in table.notes)
    assert any("all tasks: mean of 7 of 19: 57.00 ± 1.00, without Camelyon" in note for note in table.notes)


def test_a_diverged_seed_is_named_and_in_no_mean(tmp_path):
    write_vtab(tmp_path, score=lambda number, seed: math.nan if (number, seed) == (0, 1) else 0.5)
    table = tables(tmp_path)["table9"]
    assert cell(table, OURS, "Caltech101").text == "50.0 ± 0.0†"
    assert cell(table, OURS, "mean All 19").value is None
    assert any("Caltech101 is unfinished: 2 of 3 seeds (no number from seed 1)" in note for note in table.notes)


def test_one_seed_has_no_spread(tmp_path):
    write_vtab(tmp_path, seeds=(0,))
    table = tables(tmp_path)["table9"]
    assert cell(table, OURS, "Caltech101").text == "50.0"
    assert cell(table, OURS, "mean All 19").text == "68.0"


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


def test_equal_labels_are_told_apart_by_their_folders(tmp_path):
    write_vtab(tmp_path / "a", seeds=(0,))
    write_vtab(tmp_path / "b", seeds=(0,))
    assert [entry.label for entry in collect([tmp_path / "a", tmp_path / "b"])] == [f"{OURS} (a)", f"{OURS} (b)"]


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


def test_the_spread_of_one_value_is_none_and_of_none_there_is_no_value():
    assert percent([0.25], 1) == Cell(25.0, None, 1)
    assert percent([], 1).value is None
    assert percent([0.1, 0.2], 1).std == pytest.approx(7.0710678, abs=1e-6)


# What the files beside the page say, read back by programs that know nothing of the table.


def unmark(text):
    """A Markdown or LaTeX cell as the page prints it."""
    text = text.strip().removesuffix(r"\\").strip().replace(r"$\pm$", "±").replace(r"$^\dagger$", "†")
    text = text.replace("$-$", "−").replace(r"\%", "%").replace("--", "–")  # noqa: RUF001
    text = re.sub(r"^\*\*(.*)\*\*$|^\\textbf\{(.*)\}$", lambda found: found[1] or found[2], text)
    return re.sub(r"\\([\\`*_\[\]<>|#&$])", r"\1", text)


def two_sweeps(tmp_path):
    write_vtab(tmp_path / "a", label="A_1 & <b> | 50%")
    write_vtab(tmp_path / "b", label="B", leave_out={(5, 1), 6})
    return tables(tmp_path / "a", tmp_path / "b")


def test_csv_holds_the_numbers_to_the_last_digit(tmp_path):
    for table in two_sweeps(tmp_path).values():
        lines = list(csv.DictReader(io.StringIO(to_csv(table))))
        assert [line[table.corner] for line in lines] == [head.title for head in table.rows]
        for line, cells in zip(lines, table.cells, strict=True):
            for head, found in zip(table.columns, cells, strict=True):
                name = f"{head.group}: {head.title}" if head.kind == "mean" and head.group else head.title
                if found.value is None or found.unfinished:
                    assert line[name] == line[f"{name} std"] == line[f"{name} seeds"] == ""
                    continue
                assert float(line[name]) == pytest.approx(found.value, abs=1e-7)
                assert line[f"{name} seeds"] == (str(found.num) if found.num else "")
                if found.std is not None:
                    assert float(line[f"{name} std"]) == pytest.approx(found.std, abs=1e-7)
    (unfinished,) = [
        line["unfinished"] for line in csv.DictReader(io.StringIO(to_csv(two_tables(tmp_path)))) if line["unfinished"]
    ]
    assert unfinished == "Sun397: 2 of 3 seeds"


def two_tables(tmp_path):
    return tables(tmp_path / "a", tmp_path / "b")["table9"]


def test_markdown_and_latex_say_what_the_page_says(tmp_path):
    for table in two_sweeps(tmp_path).values():
        expected = [[head.title, *(c.text for c in cells)] for head, cells in zip(table.rows, table.cells, strict=True)]
        rows = [line.strip("|") for line in to_markdown(table).splitlines() if line.startswith("| ")]
        cells = [[unmark(part) for part in re.split(r"(?<!\\)\|", row)] for row in rows]
        assert [row for row in cells[1:] if any(row[1:])] == expected
        body = [line for line in to_latex(table).splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
        assert [[unmark(part) for part in re.split(r"(?<!\\)&", line)] for line in body[1:]] == expected


def test_the_best_number_is_bold_in_both(tmp_path):
    table = two_sweeps(tmp_path)["table9"]
    assert "**95.4**" in to_markdown(table)
    assert r"\textbf{95.4}" in to_latex(table)
    assert "**90.8**" not in to_markdown(table)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r@", " \n-"])
def test_names_that_a_spreadsheet_would_run_are_texts_in_csv_and_stay_on_their_line(start):
    odd = f'{start}HYPERLINK("a",1)\r\n2'
    head = Head(odd, "sweep", group=odd)
    table = Table(
        "t", odd, odd, (head,), (head,), ((Cell(-1.25, unfinished=""),),), notes=(f"{odd}\r\\input{{x}}\x85y",)
    )
    text = to_csv(table)
    assert text.count("\n") == 2
    assert "\r" not in text
    header, row = csv.reader(io.StringIO(text))
    safe = "'" + start.strip() + 'HYPERLINK("a",1) 2'
    assert header == ["group", safe, "kind", safe, f"{safe} std", f"{safe} seeds", "unfinished"]
    assert row == [safe, safe, "sweep", "-1.25", "", "", ""]  # a number is a number
    lines = to_latex(table).split("\n")
    assert [line for line in lines if "input" in line] == [lines[0]]
    assert lines[0].startswith("% ")
    assert not {"\r", "\x85", "\x0b", "\x0c"} & set(to_latex(table))
