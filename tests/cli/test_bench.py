"""`vit_jax bench`: which flags go together, what is measured for them, and how the result is printed."""

import json

import pytest

from vit_jax.bench import peers, pipeline, step
from vit_jax.cli import bench

CONFIG = "--config=configs/pretrain.py:variant=S/16,dataset=imagenet2012"


@pytest.fixture
def measured(monkeypatch):
    """The measurements that were asked for; none is made."""
    calls = []

    def record(name):
        def measure(*arguments, **settings):
            calls.append((name, arguments, settings))
            return {"images_per_s": 12.5, "batch": settings["batch_size"]}

        return measure

    monkeypatch.setattr(pipeline, "measure_data", record("data"))
    monkeypatch.setattr(pipeline, "compare", record("compare"))
    monkeypatch.setattr(step, "measure_step", record("step"))
    monkeypatch.setattr(peers, "to_markdown", lambda result: f"table of {result['batch']}")
    monkeypatch.setattr(bench, "set_up_process", lambda: None)
    return calls


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mode=train", "--steps=9"], "--steps=9: quartiles need at least 10 timed steps"),
        (["--mode=infer", "--jpegs=5"], "--jpegs=5 goes with --mode=data; infer makes its images in memory"),
        (["--mode=data", "--compare"], "--compare goes with --mode=data and --jpegs=N"),
    ],
)
def test_flags_that_do_not_go_together_are_refused_before_anything_is_measured(measured, capsys, words, message):
    assert bench.main([CONFIG, "--batch=8", *words]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert measured == []


def test_each_mode_is_measured_with_the_config_and_its_overrides(measured, capsys):
    spec, lr = CONFIG.removeprefix("--config="), [("optim.lr", "0.1")]
    assert bench.main([CONFIG, "--batch=8", "--mode=infer", "--config.optim.lr=0.1"]) == 0
    assert bench.main([CONFIG, "--batch=8", "--mode=data", "--steps=30", "--warmup=1"]) == 0
    more = ["--mode=data", "--jpegs=64", "--compare", "--peer-python=p/python", "--rounds=2"]
    capsys.readouterr()
    assert bench.main([CONFIG, "--batch=8", *more]) == 0
    assert capsys.readouterr().out == "table of 8\n"
    assert measured == [
        ("step", ("infer", spec, lr), {"batch_size": 8, "steps": 20}),
        ("data", (spec, []), {"batch_size": 8, "steps": 30, "jpegs": 0, "warmup": 1}),
        ("compare", (spec, []), {"batch_size": 8, "steps": 20, "jpegs": 64, "peer_python": "p/python", "rounds": 2}),
    ]


def test_a_result_is_aligned_lines_or_one_line_of_json(measured, capsys):
    bench.main([CONFIG, "--batch=8", "--mode=train"])
    assert capsys.readouterr().out == "images_per_s  12.5\nbatch         8\n"
    bench.main([CONFIG, "--batch=8", "--mode=train", "--json"])
    assert json.loads(capsys.readouterr().out) == {"images_per_s": 12.5, "batch": 8}
