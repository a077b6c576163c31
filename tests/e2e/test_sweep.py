"""Sweeps from the shell: all 19 tasks of VTAB, and one that is killed again and again."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import random
import re
import shutil
import time
from pathlib import Path

import generated
import pytest
from vtab_examples import amend

from vit_jax.data.vtab import tasks as vtab
from vit_jax.report.page import write_report
from vit_jax.sweeps import drive
from vit_jax.sweeps.results import read_results, read_sweep

ROOT = Path(__file__).parents[2]
TINY = {"model.width": 16, "model.depth": 1, "model.mlp_dim": 16, "model.num_heads": 1, "optim.warmup": 1}
TIMES = {"seconds", "surroundings"}


def words(config, workdir, *more, **overrides):
    """A command line of vit_jax sweep."""
    settings = [f"--config.{key.replace('__', '.')}={value}" for key, value in overrides.items()]
    return ["-m", "vit_jax", "sweep", f"--config={config}", f"--workdir={workdir}", "--parallel=2", *more, *settings]


# `vit_jax sweep` whose runs are calls in its own process: a process costs more than a run of two steps. The tests of sweeps that
# are killed, of a checkpoint that goes away and of few-shot probes have processes.
IN_ONE_PROCESS = """
import contextlib, sys
from vit_jax.cli import main, sweep
from vit_jax.sweeps import job

class Inside:
    def __init__(self):
        self._over = []

    def room(self):
        return 1 - len(self._over)

    def adopt(self, folder):
        return False

    def start(self, folders):
        for folder in folders:
            with (folder / "log.txt").open("a") as log, contextlib.redirect_stdout(log):
                job.main([str(folder)])
            self._over.append(folder)

    def ended(self):
        over, self._over = self._over, []
        return over

    def stop(self):
        return ""

sweep.make_executor = lambda flags, folder: Inside()
sys.exit(main.main(sys.argv[1:]))
"""


def in_one_process(config, workdir, *more, **overrides):
    """The same command line, whose runs are no processes."""
    return ["-c", IN_ONE_PROCESS, *words(config, workdir, *more, **overrides)[2:]]


def tiny(**more):
    return {key.replace(".", "__"): value for key, value in TINY.items()} | more


@pytest.fixture(scope="module")
def vtab_dir(tmp_path_factory):
    """Every data set of VTAB with the real builders' structure, 32 examples a split; KITTI is missing."""
    folder = tmp_path_factory.mktemp("vtab")
    for name in sorted({task.dataset for task in vtab.TASKS.values()} - {"kitti"}):
        generated.prepare(name, folder, {"train": 32, "test": 32, "validation": 32}, amend(name))
    return str(folder)


def small(data_dir):
    return tiny(data__data_dir=data_dir, data__resolution=32, data__batch_size=8, train__duration=2)


@pytest.fixture(scope="module")
def chosen_of_two(program, vtab_dir, tmp_path_factory):
    """The folder of a finished sweep over two of VTAB's tasks, with two rates to choose from."""
    folder = tmp_path_factory.mktemp("chosen") / "vtab"
    config = f"{ROOT / 'tests' / 'sweeps' / 'vtab_small.py'}:variant=Ti/16,lr=0.01+0.03,seeds=1,tasks=dtd+svhn"
    finished = program.execute(in_one_process(config, folder, **small(vtab_dir))).finish(600)
    assert finished.code == 0, finished.printed
    assert "6 of 6 done" in finished.out
    return folder


@pytest.fixture(scope="module")
def swept(program, vtab_dir, tmp_path_factory):
    """A finished sweep over VTAB with one rate, first without KITTI's data, then with it; and what both starts printed."""
    folder = tmp_path_factory.mktemp("sweep") / "vtab"
    config = f"{ROOT / 'tests' / 'sweeps' / 'vtab_small.py'}:variant=Ti/16,lr=0.01,seeds=1"
    options = small(vtab_dir)
    first = program.execute(in_one_process(config, folder, **options)).finish(600)
    generated.prepare("kitti", vtab_dir, {"train": 32, "test": 32, "validation": 32}, amend("kitti"))
    before = read_sweep(folder)
    second = program.execute(in_one_process(config, folder, **options)).finish(600)
    return folder, (first, before), second


def test_vtab_runs_all_that_has_data_and_later_only_what_was_missing(swept):
    folder, (first, before), second = swept
    assert first.code == 0, first.printed
    assert "left out, and out of every mean: kitti: " in first.out
    assert "18 of 18 done" in first.out
    assert [task.name for task in before.tasks if task.missing] == ["kitti"]
    assert second.code == 0, second.printed
    assert "19 of 19 done" in second.out
    assert re.findall(r"  (\S+)  top1 ", second.out) == ["kitti/final-lr0.01-seed0"]
    assert read_sweep(folder).tasks_in_mean == 19


def chosen(folder, task):
    """The rate with the best development score, by hand; of equals the first."""
    results = [r for r in read_results(folder).values() if (r.task, r.phase) == (task, "dev")]
    rates = sorted((-r.scores["top1"], r.candidate["optim.lr"]) for r in results)
    return rates[0][1]


def test_a_task_is_chosen_on_its_200_and_trained_on_its_1000(chosen_of_two):
    results = read_results(chosen_of_two)
    for name in ("dtd", "svhn"):
        dev = [r for r in results.values() if (r.task, r.phase) == (name, "dev")]
        (final,) = [r for r in results.values() if (r.task, r.phase) == (name, "final")]
        assert [tuple(r.splits.values()) for r in dev] == [("train800", "val200")] * 2
        assert tuple(final.splits.values()) == ("train800val200", "test")
        assert final.candidate["optim.lr"] == chosen(chosen_of_two, name)


def test_every_task_is_scored_on_its_test_split(swept):
    folder = swept[0]
    results = read_results(folder)
    assert [task.name for task in read_sweep(folder).tasks] == list(vtab.TASKS)
    for name, task in vtab.TASKS.items():
        (final,) = [r for r in results.values() if r.task == name]
        assert tuple(final.splits.values()) == ("train800val200", "test")
        assert (final.dataset, len(final.class_names)) == (f"vtab/{name}", task.classes)
        assert final.num_examples == 8  # [24:] of 32
        assert final.num_train_examples == 16
        assert final.train_flops > 0
        assert final.scores["top1"] * 8 == pytest.approx(round(final.scores["top1"] * 8))


def test_a_final_run_leaves_predictions_mistakes_and_a_checkpoint_and_a_development_run_none(swept, chosen_of_two):
    import numpy as np

    for place, result in {**read_results(swept[0]), **read_results(chosen_of_two)}.items():
        assert (place / "checkpoints").exists() == (result.phase == "final")
        with np.load(place / "predictions.npz") as stored:
            rows = dict(stored)
        assert rows["index"].tolist() == list(range(8))
        assert np.mean(rows["label"] == rows["predicted"]) == pytest.approx(result.scores["top1"])
        assert ((rows["confidence"] > 0) & (rows["confidence"] <= 1)).all()
        listed = json.loads((place / "mistakes" / "mistakes.json").read_text())
        assert len(listed) == 8 - round(8 * result.scores["top1"])
        assert all((place / "mistakes" / entry["file"]).exists() for entry in listed)
        assert [e["confidence"] for e in listed] == sorted((e["confidence"] for e in listed), reverse=True)


def test_the_page_of_the_sweep_is_table_9_with_the_mean_over_19(swept, tmp_path):
    folder = swept[0]
    assert write_report([folder], tmp_path / "page").finished
    with (tmp_path / "page" / "table9.csv").open() as file:
        (ours,) = [row for row in csv.DictReader(file) if row["kind"] == "sweep"]
    finals = [r for r in read_results(folder).values() if r.phase == "final"]
    scores = {
        task.title: [f.scores["top1"] for f in finals if f.task == task.name] for task in read_sweep(folder).tasks
    }
    assert ours["model"] == "Ti/16, from scratch"
    for title, (score,) in scores.items():
        assert float(ours[title]) == pytest.approx(100 * score)
    assert float(ours["Mean: All 19"]) == pytest.approx(100 * sum(score for (score,) in scores.values()) / 19)


def page_without_times(folder, to):
    """Every file of a sweep's page, drawn from a copy whose times are gone."""
    copy = to / "sweep"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("checkpoints", "tensorboard", "log.txt"))
    for file in copy.rglob("result.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"seconds": 1.0, "surroundings": {}}))
    assert write_report([copy], copy / "report").finished
    files = {str(p.relative_to(copy / "report")): p.read_bytes() for p in (copy / "report").rglob("*") if p.is_file()}
    assert "index.html" in files
    return files


def comparable(folder):
    """All that a sweep came to, apart from times."""
    found = {}
    for place, result in read_results(folder).items():
        kept = {key: value for key, value in vars(result).items() if key not in TIMES}
        records = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
        records = [{k: v for k, v in record.items() if not k.startswith("time/")} for record in records]
        found[str(place.relative_to(folder))] = kept, records, (place / "predictions.npz").read_bytes()
    return found


def test_a_sweep_killed_three_times_comes_to_what_an_undisturbed_one_does(program, digits_dir, tmp_path):
    config = "configs/finetune.py:dataset=cifar10,variant=B/16,smoke,lr=0.01+0.03,seeds=2"
    options = tiny(data__data_dir=digits_dir, train__duration=12, checkpoint__every=2)
    undisturbed = program.execute(words(config, tmp_path / "one", **options)).finish(600)
    assert undisturbed.code == 0, undisturbed.printed
    rng = random.Random(0)
    folder = tmp_path / "two"
    # In the middle of the first runs, when a candidate has its score, and when the chosen one trains.
    for pattern in ("dev-*/checkpoints/[0-9]*", "dev-*/result.json", "final-*/config.json"):
        sweep = program.execute(words(config, folder, **options))
        sweep.wait_until(lambda pattern=pattern: any(folder.glob(f"runs/*/{pattern}")))
        time.sleep(rng.uniform(0, 0.5))
        sweep.process.kill()  # the driver alone: its runs notice, save, and hold their folders until they have
        sweep.kill()
    assert len(read_results(folder)) < 4
    finished = program.execute(words(config, folder, **options)).finish(600)
    assert finished.code == 0, finished.printed
    found, expected = comparable(folder), comparable(tmp_path / "one")
    assert sorted(found) == sorted(expected)
    assert found == expected
    pages = [page_without_times(tmp_path / name, tmp_path / f"page_{name}") for name in ("one", "two")]
    assert pages[0] == pages[1]


def test_a_checkpoint_that_goes_away_in_the_middle_loses_nothing(program, undisturbed, digits_dir, tmp_path):
    start, folder = tmp_path / "start", tmp_path / "sweep"
    shutil.copytree(undisturbed, start)
    config = f"configs/finetune.py:dataset=digits,init={start},lr=0.01+0.03,seeds=1"
    command = words(config, folder, "--parallel=1", data__data_dir=digits_dir, train__duration=4, data__resolution=16)
    command += ["--config.data.batch_size=64", "--config.optim.warmup=1"]
    sweep = program.execute(command)
    sweep.wait_until(lambda: "1 of 3 done" in sweep.printed())
    start.rename(tmp_path / "away")
    stopped = sweep.finish(600)
    assert stopped.code == 1, stopped.printed
    assert re.search(r"failed: digits/(dev-lr0.03|final-lr0\.\d+)-seed0: .*start", stopped.err)
    assert "the same command tries again what is missing" in stopped.err
    kept = {place: (place / "result.json").read_bytes() for place in read_results(folder)}
    assert len(kept) >= 1
    (tmp_path / "away").rename(start)
    finished = program.execute(command).finish(600)
    assert finished.code == 0, finished.printed
    assert len(read_results(folder)) == 3
    assert all((place / "result.json").read_bytes() == before for place, before in kept.items())


def test_a_rate_that_diverges_is_not_chosen_and_blocks_nothing(program, digits_dir, tmp_path):
    config = "configs/finetune.py:dataset=cifar10,variant=B/16,smoke,lr=1e30+0.01,seeds=1"
    options = tiny(data__data_dir=digits_dir, train__duration=4)
    finished = program.execute(in_one_process(config, tmp_path / "s", **options, optim__clip_norm=0.0)).finish(600)
    assert finished.code == 0, finished.printed
    results = {f"{r.phase} {r.candidate['optim.lr']}": r.scores["top1"] for r in read_results(tmp_path / "s").values()}
    assert math.isnan(results.pop("dev 1e+30"))
    assert set(results) == {"dev 0.01", "final 0.01"}
    assert write_report([tmp_path / "s"], tmp_path / "page").finished


def test_a_full_disk_ends_the_driver_with_one_message(program, digits_dir, tmp_path, monkeypatch):
    def full(folder, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "job.json"))

    monkeypatch.setattr(drive, "write_job", full)
    config = "configs/finetune.py:dataset=cifar10,variant=B/16,smoke,lr=0.01,seeds=1"
    stopped = program.call(*words(config, tmp_path / "s", **tiny(data__data_dir=digits_dir, train__duration=4))[2:])
    assert stopped.code == 2
    (line,) = stopped.err.splitlines()
    assert line.startswith(f"error: {tmp_path}/s/runs/")
    assert line.endswith("/job.json could not be written: No space left on device; make room and try again")
    assert "stopped: what ran has saved; the same command resumes" in stopped.out


def test_few_shot_probes_of_a_run_make_a_table(program, undisturbed, digits_dir, tmp_path):
    config = f"configs/fewshot.py:init={undisturbed},sets=digits,shots=1+5+1000,seeds=2"
    command = [
        "-m",
        "vit_jax",
        "sweep",
        f"--config={config}",
        f"--workdir={tmp_path / 's'}",
        f"--config.data_dir={digits_dir}",
    ]
    planned = program.call(*command[2:], "--dry-run")
    assert "1,797 examples" in planned.out, planned.printed
    finished = program.execute(command).finish(600)
    assert finished.code == 0, finished.printed
    assert "digits: 10 classes have fewer than 1000 examples and give those they have" in "".join(
        log.read_text() for log in (tmp_path / "s").rglob("log.txt")
    )
    results = list(read_results(tmp_path / "s").values())
    assert [r.seed for r in results] == [0, 1]
    assert all(0.1 < r.scores["1shot"] <= r.scores["5shot"] <= 1 for r in results)
    assert f"sets=digits,shots=1+5+1000,seeds={2}" in results[1].command
    assert write_report([tmp_path / "s"], tmp_path / "page").finished
    with (tmp_path / "page" / "table-fewshot.csv").open() as file:
        assert f"{50 * (results[0].scores['5shot'] + results[1].scores['5shot']):.4f}"[:6] in file.read()


def test_a_dry_run_says_what_would_run_and_runs_nothing(program, digits_dir, tmp_path):
    config = "configs/finetune.py:dataset=cifar10,variant=B/16,smoke,lr=0.01+0.03,seeds=2"
    said = program.call(*words(config, tmp_path / "s", "--dry-run", data__data_dir=digits_dir)[2:])
    assert said.code == 0, said.printed
    assert "4 runs, 0 done" in said.out
    assert "16 steps        1,024 examples" in said.out
    assert not (tmp_path / "s" / "runs").exists()


def test_what_a_run_would_refuse_is_refused_before_any_starts(program, digits_dir, tmp_path):
    config = "configs/finetune.py:dataset=digits,variant=B/16,smoke,lr=0.01,seeds=1"
    wrong = tiny(checkpoint__best_metric="top1", data__data_dir=digits_dir)
    messages = set()
    for more in ([], ["--dry-run"]):
        said = program.call(*words(config, tmp_path / "s", *more, **wrong)[2:])
        assert said.code == 2, said.printed
        messages.add(said.err)
    (message,) = messages
    assert "checkpoint.best_metric is 'top1'; expected one of eval/test/METRIC" in message
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("configs/vtab.py:variant=Ti/16,tasks=eurosad", r"no VTAB task 'eurosad'; did you mean 'eurosat'?"),
        ("configs/vtab.py:variant=Ti/16,seeds=0", "seeds=0: expected how many, 1 or more"),
        ("configs/vtab.py:tasks=dtd", "give init=PATH, or variant=SIZE/PATCH"),
        ("configs/pretrain.py", "describes one run and no sweep"),
        ("configs/vtab.py:variant=Ti/16,tasks=dtd", "there is data for none of the tasks"),
        ("configs/finetune.py:dataset=digits,init=no/such.npz", "no/such.npz"),
    ],
)
def test_what_cannot_run_is_told_before_anything_does(program, tmp_path, config, message):
    said = program.call(*words(config, tmp_path / "s")[2:])
    assert said.code == 2
    assert message in said.err
    assert "Traceback" not in said.printed
    assert not (tmp_path / "s").exists()
