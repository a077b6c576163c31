"""Where a run's time goes: shares over all starts, what a kill loses, and the advice to a starved device."""

import json

import pytest
from etils import epath

from vit_jax.train import clock as clocks
from vit_jax.train.clock import FILE, KINDS, Clock, read_shares, starvation


def spend(clock, **seconds):
    for kind, count in seconds.items():
        clock.add(kind, count)


def test_time_after_the_last_checkpoint_of_a_killed_start_is_lost(tmp_path):
    first = Clock(epath.Path(tmp_path))
    spend(first, start=2.0, compile=3.0, step=10.0, saving=1.0)
    first.saved()
    first.step(0.5, 4.0)
    first.rates(8, 100)  # a record; and then it was killed
    second = Clock(epath.Path(tmp_path))
    spend(second, start=1.0, compile=1.0, step=17.5, evaluation=2.0)
    second.saved()
    totals = second.totals()
    expected = {"start": 3, "compile": 4, "data": 0, "step": 27.5, "evaluation": 2, "saving": 1, "lost": 4.5}
    assert totals == expected
    assert second.shares()["step"] == pytest.approx(27.5 / 42)
    assert "data" not in second.shares()
    assert str(second) == "65% step, 11% lost, 10% compile, 7% start, 5% evaluation, 2% saving"
    third = Clock(epath.Path(tmp_path))  # finished, and started once more: nothing of the second is lost
    assert third.totals() == expected


@pytest.mark.parametrize("text", ["", "[", "{}", "[1]", json.dumps([{"spent": {"step": 1}, "saved": {}}])])
def test_a_damaged_file_stops_no_run(tmp_path, text):
    (tmp_path / clocks.FILE).write_text(text)
    assert set(Clock(epath.Path(tmp_path)).totals().values()) == {0.0}


def test_rates_are_of_the_steps_since_the_last_record():
    clock = Clock()
    for _ in range(10):
        clock.step(0.125, 0.375)
    spend(clock, saving=100.0)
    assert clock.rates(8, 20) == {"time/images_per_s": 16.0, "time/data_wait_share": 0.25, "time/eta_s": 10.0}
    clock.step(0.0, 2.0)
    spend(clock, evaluation=50.0)
    assert clock.rates(8, 10) == {"time/images_per_s": 4.0, "time/data_wait_share": 0.0, "time/eta_s": 20.0}


def test_the_advice_names_the_cores_that_would_feed_the_device_and_is_given_once(monkeypatch):
    monkeypatch.setattr(clocks, "cores", lambda: 4)
    clock = Clock()
    given = []
    for step in range(1, 61):
        clock.step(0.75, 0.25)
        if step % 10 == 0:
            clock.rates(1000, 0)
            given.append(clock.advice())
    assert [bool(text) for text in given] == [False, False, True, False, False, False]  # 20 steps fill queues
    assert "75% of the time: it gets 1,000 images/s and could take 4,000" in given[2]
    assert "about 16 cores in place of 4" in given[2]
    assert starvation({"time/data_wait_share": 0.1, "time/images_per_s": 1000.0}) == ""


def test_time_since_the_last_checkpoint_is_lost_only_once_another_start_follows(tmp_path):
    spent = dict.fromkeys(KINDS, 0.0) | {"step": 30.0}
    saved = dict.fromkeys(KINDS, 0.0) | {"step": 20.0}
    (tmp_path / FILE).write_text(json.dumps([{"spent": spent, "saved": saved}]))
    assert read_shares(tmp_path) == {"step": 1.0}
    (tmp_path / FILE).write_text(json.dumps([{"spent": spent, "saved": saved}] * 2))
    assert read_shares(tmp_path) == pytest.approx({"step": 50 / 60, "lost": 10 / 60})  # 20 saved, 10 lost, 30 running


def test_a_workdir_without_an_account_of_time_has_no_shares(tmp_path):
    assert read_shares(tmp_path) == {}
