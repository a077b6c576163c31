"""Work folders that an older version made: a run killed after step 5 of 8, and a sweep with one of three runs to do.

`tests/golden/older.tar.xz` was made on 2026-11-27, before configs were settled in one place: the folders of the commands below, a
checkpoint of step 4 kept, and in `expected.jsonl` the metrics of the run that was not killed.
"""

import json
import tarfile
from pathlib import Path

import pytest

from vit_jax.sweeps.drive import claim, collect
from vit_jax.sweeps.grid import load_grid

RUN = {
    "model.width": 16,
    "model.depth": 2,
    "model.mlp_dim": 16,
    "model.num_heads": 1,
    "model.representation_size": 8,
    "data.split": "train[:240]",
    "data.batch_size": 60,
    "train.duration": 8,
    "train.log_every": 1,
    "checkpoint.every": 4,
    "checkpoint.keep_last": 2,
    "evals.digits.every": 4,
    "evals.digits.split": "test[:50]",
    "evals.fewshot.train_split": "train[:100]",
    "evals.fewshot.test_split": "test[:50]",
}
SWEEP = "configs/finetune.py:dataset=digits,variant=B/16,smoke,lr=0.01+0.03,seeds=1"
SWEPT = {
    "model.width": "16",
    "model.depth": "1",
    "model.mlp_dim": "16",
    "model.num_heads": "1",
    "data.split": "train[:240]",
    "data.batch_size": "60",
    "train.duration": "2",
}


@pytest.fixture
def older(tmp_path):
    with tarfile.open(Path(__file__).parents[1] / "golden" / "older.tar.xz") as file:
        if hasattr(tarfile, "data_filter"):  # Python 3.11.4; Debian 12 has 3.11.2
            file.extraction_filter = tarfile.data_filter
        file.extractall(tmp_path)
    return tmp_path


def read(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_an_older_run_resumes_and_ends_as_it_would_have(program, older, digits_dir):
    overrides = [f"--config.{key}={value}" for key, value in {**RUN, "data.data_dir": digits_dir}.items()]
    command = ["-m", "vit_jax.main", "--config=configs/quickstart.py:pretrain,smoke", f"--workdir={older / 'run'}"]
    resumed = program.execute([*command, *overrides]).finish()
    assert resumed.code == 0, resumed.printed
    assert "from step 4" in resumed.out
    expected, found = read(older / "expected.jsonl"), read(older / "run" / "metrics.jsonl")
    assert [entry["step"] for entry in found] == [entry["step"] for entry in expected]
    for entry, other in zip(found, expected, strict=True):
        assert entry.keys() == other.keys()
        timeless = {key: value for key, value in other.items() if not key.startswith("time/")}
        # Another CPU sums in another order.
        assert {key: entry[key] for key in timeless} == pytest.approx(timeless, rel=1e-4)


def test_an_older_sweep_resumes_with_the_results_it_has(older):
    folder, grid = older / "sweep", load_grid(SWEEP, list(SWEPT.items()))
    claim(folder, grid)
    done = collect(grid, folder, {})
    assert {key: result.score("top1") for key, result in done.items()} == {
        "digits/dev-lr0.01-seed0": 0.10416666666666667,
        "digits/dev-lr0.03-seed0": 0.10416666666666667,
    }
    assert [run.key for run in grid.known_runs(done) if run.key not in done] == ["digits/final-lr0.01-seed0"]
