"""Curves of very short runs: one record is a point, and no two ticks say the same."""

import json
import re

import pytest
from folders import result, transfer_sweep, write_run, write_sweep

from vit_jax.report.collect import collect
from vit_jax.report.training import training_charts


@pytest.mark.parametrize("steps", [(8,), (1, 2), (3, 4, 5)])
def test_a_run_of_few_records_is_drawn_with_whole_steps_and_a_point_where_there_is_no_line(steps, tmp_path):
    write_sweep(tmp_path, transfer_sweep(titles=("Digits",), candidates={"optim.lr": (0.01,)}, seeds=(0,)))
    folder = write_run(tmp_path, result("digits", 0.9))
    records = [{"step": step, "train/loss": 1 / step, "eval/test/top1": 0.5} for step in steps]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (entry,) = collect([tmp_path])
    for chart in training_charts("x", [(0, "ours", entry.tasks[0])]):
        ticks = re.findall(r"<!-- (\S+) -->", chart.svg) or re.findall(r"<text[^>]*>([^<]+)</text>", chart.svg)
        whole = [text for text in ticks if re.fullmatch(r"\d+", text) and int(text) <= max(steps)]
        assert len(whole) == len(set(whole)) >= 1
    loss = training_charts("x", [(0, "ours", entry.tasks[0])])[0]
    points = len(
        re.findall(r'<use xlink:href="#x-loss-\w+" x="[\d.]+" y="[\d.]+" style="fill: var\(--series-0\)', loss.svg)
    )
    assert points == (1 if len(steps) == 1 else 0)
