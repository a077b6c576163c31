"""Where a page's numbers come from, and every reason why two of them are hard to compare."""

import pytest
from folders import COMMIT, result, transfer_sweep, vtab_sweep, write_run, write_sweep

from vit_jax.report.collect import collect
from vit_jax.report.provenance import facts, warnings

ABOUT = result("cifar10", 0.5).surroundings


@pytest.fixture
def sweep_of(tmp_path):
    """Writes a sweep with these runs, one rate and one seed unless they say otherwise; returns its entry."""

    def write(*runs, name="s", **changes):
        settings = {"candidates": {"optim.lr": (0.01,)}, "seeds": (0,)} | changes
        (tmp_path / name).mkdir()
        write_sweep(tmp_path / name, transfer_sweep(**settings))
        for run in runs:
            write_run(tmp_path / name, run)
        (entry,) = collect([tmp_path / name])
        return entry

    return write


def values(entries):
    return {fact.name: (*fact.values, fact.differs) for fact in facts(entries)}


def test_the_lines_of_a_sweep_are_sums_and_what_its_runs_say(sweep_of):
    entry = sweep_of(
        result("cifar10", 0.5, seed=0, seconds=1_000.4, num_train_examples=1_500, train_flops=2 * 10**15),
        result("cifar10", 0.5, seed=1, seconds=500.2, num_train_examples=2_000, train_flops=10**15),
        seeds=(0, 1),
    )
    found = values([entry])
    assert found["tried"] == ("optim.lr: 0.01", False)
    assert found["seeds"] == ("0, 1", False)
    assert found["runs done"] == ("2 of 6", False)  # three tasks, two seeds
    assert found["git commit"] == (COMMIT[:12], False)
    assert found["package versions"] == ("jax 0.11.0, flax 0.12.1, numpy 2.3.1", False)
    assert found["preprocessing"] == ("recipe eval, kernel bilinear, range [-1, 1]", False)
    assert found["parameters"] == ("5,526,346", False)
    assert found["training FLOPs, all runs"] == ("3e+15", False)
    assert found["examples trained on, all runs"] == ("3,500", False)
    assert found["seconds, all runs"] == ("1,501", False)
    assert found["first and last start"] == ("2026-03-01T10:00:00+00:00 to 2026-03-02T10:00:00+00:00", False)
    assert warnings([entry]) == []


def test_a_sweep_without_runs_and_runs_of_versions_that_said_less_leave_no_gap(sweep_of):
    empty = values([sweep_of(name="empty")])
    assert {empty[name][0] for name in ("git commit", "parameters", "devices")} == {"–"}  # noqa: RUF001
    assert empty["first and last start"] == ("not said", False)
    entry = sweep_of(result("digits", 0.5, surroundings={"git": None, "versions": []}, preprocessing={}))
    found = values([entry])
    for name in (
        "git commit",
        "package versions",
        "Python version",
        "preprocessing",
        "platform",
        "first and last start",
    ):
        assert found[name] == ("not said", False), name
    assert warnings([entry]) == ["1 of 1 runs do not say which commit made them."]


def test_what_differs_between_two_sweeps_of_a_table_names_the_sweep_and_the_task(sweep_of):
    first = sweep_of(result("cifar10", 0.5), result("digits", 0.5), name="a", label="A")
    newer = ABOUT | {"python": "3.12.1"}
    second = sweep_of(result("cifar10", 0.5, surroundings=newer), name="b", label="B")
    assert warnings([first, second]) == [
        "Runs of one table differ in Python version: 3.11.7 (A, cifar10, A, digits); 3.12.1 (B, cifar10)."
    ]
    assert values([first, second])["Python version"] == ("3.11.7", "3.12.1", True)
    assert warnings([first]) == warnings([second]) == []


def test_of_many_tasks_four_are_named_and_of_several_values_each_is_counted(sweep_of):
    tasks = vtab_sweep().tasks[:7]
    runs = [result(task.name, 0.5, resolution=(224, 224) if n == 6 else (384, 384)) for n, task in enumerate(tasks)]
    entry = sweep_of(*runs, tasks=tasks)
    (warning,) = warnings([entry])
    named = ", ".join(task.name for task in tasks[:4])
    assert warning == (
        f"Runs of one table differ in resolution: 384 × 384 px ({named} and 2 more); "  # noqa: RUF001
        f"224 × 224 px ({tasks[6].name})."  # noqa: RUF001
    )
    times = values([entry])["resolution"]
    assert times == ("384 × 384 px (6 runs); 224 × 224 px (1 runs)", True)  # noqa: RUF001


def test_files_that_were_left_out_and_files_changed_since_their_commit_are_warnings(sweep_of, tmp_path):
    changed = ABOUT | {"git": {"commit": COMMIT, "modified": True}}
    entry = sweep_of(result("cifar10", 0.5), result("digits", 0.5, surroundings=changed))
    torn = write_run(tmp_path / "s", result("oxford_iiit_pet", 0.5)) / "result.json"
    torn.write_text("{")
    (entry,) = collect([tmp_path / "s"])
    left_out, modified = warnings([entry])
    assert left_out.startswith(f"Left out: {torn} ")
    assert modified == "1 of 2 runs were made from files that differ from their commit."
