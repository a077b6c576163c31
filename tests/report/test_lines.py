"""A sweep's line in a table: means over whole tasks alone, and notes on what is missing."""

import dataclasses
import math

from folders import (
    OURS,
    cell,
    tables,
    vtab_sweep,
    write_vtab,
)


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
