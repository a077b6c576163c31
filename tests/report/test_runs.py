"""The page of runs: figures from the files, differences between configs, where the time went."""

import json

import pytest

from vit_jax.report.page import write_report
from vit_jax.report.render import PAGE, Progress
from vit_jax.types import UserError

SPENT = {"start": 5.0, "compile": 15.0, "data": 10.0, "step": 60.0, "evaluation": 5.0, "saving": 5.0}
HOSTILE = "<script>alert(1)</script>"


def write_run(folder, lr=0.1, *, finished=True, dataset="digits"):
    """A workdir with round numbers."""
    folder.mkdir()
    config = {name: {} for name in ("checkpoint", "evals", "init", "metrics", "objective", "train")}
    config |= {"data": {"dataset": dataset, "split": "train"}, "model": {"name": "vit"}, "optim": {"lr": lr}, "seed": 0}
    (folder / "config.json").write_text(json.dumps(config))
    records = [
        {"step": 10, "train/loss": 2.0, "time/eta_s": 7200.0},
        {"step": 10, "eval/test/top1": 0.25, "eval_average/test/top1": 0.5, "eval/few/5shot_seed0": 0.125},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (folder / "settled.json").write_text(json.dumps([["train.fsdp", 1, "the state is small"]]))
    (folder / "time.json").write_text(json.dumps([{"spent": SPENT, "saved": SPENT}]))
    if finished:
        result = {"config": config, "scores": {}, "versions": {"jax": "0.10.2"}, "git": {"commit": "ab" * 20}}
        result |= {"steps": 10, "num_params": 1234567, "train_flops_per_image": 2_500_000}
        result |= {"data": [], "devices": ["cpu"], "seconds": 99.6}
        (folder / "run.json").write_text(json.dumps(result))
    return folder


def page_of(*folders, to):
    """(text of the page, progress)."""
    progress = write_report(folders, to)
    return (to / PAGE).read_text(), progress


def test_the_page_of_a_run_has_its_figures_and_where_its_time_went(tmp_path):
    text, progress = page_of(write_run(tmp_path / "mine"), to=tmp_path / "page")
    assert progress == Progress(1, 1)
    for words in ("Finished: 10 steps.", "25.00%, averaged weights 50.00%", "1,234,567", "60.0%", "the state is small"):
        assert words in text
    assert "5shot_seed0" not in text
    assert "Differences" not in text
    assert text.count("<svg viewBox") == 3  # loss, top-1, time


def test_the_last_picture_of_each_evaluator_is_shown(tmp_path):
    pictures = write_run(tmp_path / "mine") / "pictures"
    pictures.mkdir()
    for name in ("val-9.png", "val-10.png", "re-con-2.png", "val-x.png", "notes.txt"):
        (pictures / name).write_bytes(b"")
    text, _ = page_of(tmp_path / "mine", to=tmp_path / "page")
    assert text.count("<img") == 2
    for link in ("../mine/pictures/val-10.png", "../mine/pictures/re-con-2.png"):
        assert f'src="{link}"' in text


def test_an_unfinished_run_says_how_far_it_is(tmp_path):
    text, progress = page_of(write_run(tmp_path / "mine", finished=False), to=tmp_path / "page")
    assert progress == Progress(0, 1)
    assert "At step 10, 2.0 hours from the end." in text


def test_two_runs_show_the_keys_in_which_they_differ_and_no_other(tmp_path):
    runs = [write_run(tmp_path / "a", 0.1), write_run(tmp_path / "b", 0.3)]
    text, _ = page_of(*runs, to=tmp_path / "page")
    differences = text[text.index("Differences between") : text.index("What made the numbers")]
    assert "optim.lr" in differences
    assert "0.3" in differences
    assert "data.dataset" not in differences


def test_text_of_a_run_stays_text(tmp_path):
    text, _ = page_of(write_run(tmp_path / "mine", dataset=HOSTILE), to=tmp_path / "page")
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text


def test_a_run_and_a_sweep_share_no_page(tmp_path):
    (tmp_path / "sweep").mkdir()
    with pytest.raises(UserError, match=r"sweep: no run, but others are; give runs or sweeps, not both"):
        write_report([write_run(tmp_path / "mine"), tmp_path / "sweep"], tmp_path / "page")


def test_damaged_files_are_named(tmp_path):
    run = write_run(tmp_path / "mine")
    (run / "settled.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match=r"settled\.json is damaged"):
        write_report([run], tmp_path / "page")
