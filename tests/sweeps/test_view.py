"""The console's view of a sweep: plain lines in a log, estimates by a clock of the test's own, and a terminal left as it was."""

import io
import math
import re

import pytest
from made import result_of

from vit_jax.sweeps.drive import Progress
from vit_jax.sweeps.view import View


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def results(grid):
    """Task a: three candidates and the first of two seeds; task b: one candidate."""
    scores = {"a/dev-lr0.1-seed0": 0.5, "a/dev-lr0.2-seed0": 0.75, "a/dev-lr0.4-seed0": math.nan}
    runs = {run.key: run for task in "ab" for run in (*grid.dev_runs(task), *grid.final_runs(task, {"optim.lr": 0.2}))}
    scores |= {"a/final-lr0.2-seed0": 0.6, "b/dev-lr0.1-seed0": 0.25}
    return {key: result_of(runs[key], score) for key, score in scores.items()}


def progress(results, *, running=(), failed=None, began=0):
    return Progress(10, results, tuple(running), failed or {}, began)


def first(results, count):
    return dict(list(results.items())[:count])


def test_a_log_has_a_line_for_each_run_that_ends_now_and_none_for_those_of_earlier_starts(grid, results):
    out, now = io.StringIO(), [100.0]
    with View(grid.sweep, 2, stream=out, clock=lambda: now[0]) as view:
        view(progress(first(results, 1), running=["x", "y"], began=1))
        assert out.getvalue() == ""
        now[0] = 130.0
        view(progress(first(results, 3), running=["x"], began=1))
        view(progress(first(results, 3), running=["x"], failed={"b/dev-lr0.2-seed0": "no data"}, began=1))
        view(progress(first(results, 3), failed={"b/dev-lr0.2-seed0": "no data"}, began=1))
    # Two runs took 30 s. Of ten, 7 are left, and 6 when one has failed.
    assert out.getvalue().splitlines() == [
        "3 of 10 done, 1 running, 0 failed, 0:01:45 left  a/dev-lr0.2-seed0  top1 75.00% in 1 s",
        "3 of 10 done, 1 running, 0 failed, 0:01:45 left  a/dev-lr0.4-seed0  top1 no number (see log.txt) in 1 s",
        "3 of 10 done, 1 running, 1 failed, 0:01:30 left  b/dev-lr0.2-seed0  failed: no data",
    ]


def test_nothing_is_estimated_before_the_first_run_of_this_start_has_ended(grid, results):
    view = View(grid.sweep, 2, stream=io.StringIO(), clock=lambda: 0.0)
    assert view.seconds_left(progress(first(results, 2), began=2)) is None
    assert view.counts(progress(first(results, 2), began=2)) == "2 of 10 done, 0 running, 0 failed"
    whole = {str(number): None for number in range(10)}
    assert view.seconds_left(progress(whole, began=10)) == 0.0


def test_a_task_shows_its_best_candidate_until_its_test_scores_are_there(grid, results):
    view = View(grid.sweep, 2, stream=io.StringIO())
    assert view.best(progress({})) == {}
    assert view.best(progress(first(results, 3))) == {"A": "75.00% on dev, lr 0.2"}  # what diverged is never the best
    assert view.best(progress(results)) == {"A": "60.00% on test, 1 of 2 seeds", "B": "25.00% on dev, lr 0.1"}


def test_a_terminal_shows_tasks_runs_and_failures_and_gets_its_cursor_back(grid, results, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    out = Terminal()
    failed = {f"b/{number}": f"[bold]reason {number}" for number in range(8)}
    with View(grid.sweep, 2, stream=out) as view:
        view(progress(results, running=["a/one", "a/two", "a/three"], failed=failed))
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "60.00% on test, 1 of 2 seeds" in plain
    assert "5 of 10 done, 3 running, 8 failed" in plain
    assert "a/two" in plain
    assert "a/three" not in plain  # it waits: two run at a time
    assert "failed: [bold]reason 7" in plain  # as it is, without markup
    assert "reason 1" not in plain  # the last six
    assert out.getvalue().rstrip("\n").endswith("\x1b[?25h")
