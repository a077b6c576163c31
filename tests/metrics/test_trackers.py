"""Trackers: a resumed run continues the same tracked run, a failing tracker ends no training, and mistakes are one message.

The libraries themselves are in tests/share; here stand-ins take their place.
"""

import importlib.util
import json

import pytest

from vit_jax.metrics import trackers
from vit_jax.metrics.trackers import Guarded, check_trackers, open_trackers
from vit_jax.metrics.writers import MetricWriters, Writer
from vit_jax.types import UserError


class Notebook(Writer):
    """A stand-in that notes everything."""

    def __init__(self, workdir, config, identity):
        self.identity = identity or "new1"
        self.seen = [(workdir.name, config["seed"], identity)]

    def write(self, step, scalars):
        self.seen.append((step, scalars))

    def picture(self, step, name, file):
        self.seen.append((step, name, file.name))

    def close(self):
        self.seen.append("failed" if self.failed else "finished")


@pytest.fixture
def notebook(monkeypatch):
    made = []
    monkeypatch.setitem(trackers.TRACKERS, "notebook", lambda *args: made.append(Notebook(*args)) or made[-1])
    return made


def test_a_resumed_run_continues_its_tracked_run_and_pictures_go_along(tmp_path, notebook):
    for _ in range(2):
        with MetricWriters(open_trackers(["notebook"], tmp_path, {"seed": 3})) as writers:
            writers.write(5, {"train/loss": 0.5})
            writers.picture(5, "hidden", tmp_path / "hidden-5.png")
    rest = [(5, {"train/loss": 0.5}), (5, "hidden", "hidden-5.png"), "finished"]
    assert [one.seen for one in notebook] == [[(tmp_path.name, 3, identity), *rest] for identity in ("", "new1")]
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"notebook": "new1"}


def test_a_run_that_an_error_ends_is_marked_as_failed(tmp_path, notebook):
    with pytest.raises(RuntimeError), MetricWriters(open_trackers(["notebook"], tmp_path, {"seed": 3})):
        raise RuntimeError
    assert notebook[0].seen[-1] == "failed"


def test_a_tracker_that_fails_is_reported_once_left_alone_for_a_while_and_tried_again(monkeypatch, capsys):
    now, calls = [0.0], []

    class Broken(Writer):
        def write(self, step, scalars):
            calls.append(step)
            raise ConnectionError("no server\x1b[0m")

    monkeypatch.setattr(trackers.time, "monotonic", lambda: now[0])
    guarded = Guarded("mlflow", Broken())
    for step, seconds in enumerate((1, 10, 299, 302, 700)):
        now[0] = seconds
        guarded.write(step, {})
    assert calls == [0, 3, 4]
    message = capsys.readouterr().err
    assert message.count("mlflow does not take the run's numbers (ConnectionError: no server\\x1b[0m)") == 1


def test_an_unknown_name_and_a_missing_package_are_refused_before_the_run(monkeypatch):
    with pytest.raises(UserError, match=r"train.trackers has 'wandv'; did you mean 'wandb'"):
        check_trackers(["wandv"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'vit_jax\[mlflow\]'"):
        check_trackers(["mlflow"])


def test_a_tracker_that_does_not_know_the_workdirs_run_names_the_file_to_remove(tmp_path, monkeypatch):
    def unknown(workdir, config, identity):
        raise KeyError(identity)

    monkeypatch.setitem(trackers.TRACKERS, "notebook", unknown)
    (tmp_path / "trackers.json").write_text('{"notebook": "gone"}')
    with pytest.raises(UserError, match=r"Its run is gone: remove .*trackers.json to begin a new one"):
        open_trackers(["notebook"], tmp_path, {})
    (tmp_path / "trackers.json").write_text("[")
    with pytest.raises(UserError, match="remove it, and a new tracked run begins"):
        open_trackers(["notebook"], tmp_path, {})


def test_no_tracker_writes_no_file(tmp_path):
    assert open_trackers([], tmp_path, {}) == []
    assert list(tmp_path.iterdir()) == []


def test_keys_of_mlflow_hold_only_what_it_takes():
    assert trackers._mlflow_key("eval/test/ap_of_a<b>é") == "eval/test/ap_of_a_b_é"
    assert trackers._flat({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a.b": 1, "a.c.d": 2, "e": 3}
