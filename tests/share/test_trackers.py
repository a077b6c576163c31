"""Weights & Biases and MLflow themselves, without a network: numbers and pictures arrive, and a resumed run is the same run."""

import json

import numpy as np
import pytest
from PIL import Image

from vit_jax.metrics.trackers import open_trackers
from vit_jax.metrics.writers import MetricWriters


def track(name, workdir, steps):
    """Writes numbers and a picture as a part of a run would; returns the id of the tracked run."""
    picture = workdir / "hidden-5.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(picture)
    config = {"optim": {"lr": 0.1}, "evals": {f"set{n}": {"every": n} for n in range(120)}}
    with MetricWriters(open_trackers([name], workdir, config)) as writers:
        for step in steps:
            writers.write(step, {"train/loss": 1 / step, "eval/test/top1": np.float32(0.5)})
        writers.picture(5, "hidden", picture)
    return json.loads((workdir / "trackers.json").read_text())[name]


def test_mlflow_keeps_one_run_over_a_resume(tmp_path, monkeypatch, capsys):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/store")
    identity = track("mlflow", tmp_path, [1, 2, 4])
    assert track("mlflow", tmp_path, [4, 5]) == identity
    client = MlflowClient()
    run = client.get_run(identity)
    assert (run.info.status, run.data.params["optim.lr"], len(run.data.params)) == ("FINISHED", "0.1", 121)
    history = client.get_metric_history(identity, "train/loss")
    assert sorted({(metric.step, metric.value) for metric in history}) == [(n, 1 / n) for n in (1, 2, 4, 5)]
    assert [file.path for file in client.list_artifacts(identity, "pictures")] == ["pictures/hidden-5.png"]
    assert capsys.readouterr().err == ""


def test_wandb_keeps_one_run_over_a_resume_without_a_network(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    identity = track("wandb", tmp_path, [1, 2, 4])
    assert track("wandb", tmp_path, [4, 5]) == identity
    parts = list((tmp_path / "wandb").glob(f"offline-run-*-{identity}"))
    files = [file for part in parts for file in part.rglob("*")]
    assert [file.name for file in files if file.suffix == ".wandb"] == [f"run-{identity}.wandb"] * len(parts)
    assert [file for file in files if file.suffix == ".png"]
    stored = b"".join(file.read_bytes() for file in files if file.suffix == ".wandb")
    assert b"train/loss" in stored
    assert "does not take" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_each_name_is_a_package_that_is_here(name):
    from vit_jax.metrics.trackers import check_trackers

    check_trackers([name])
