"""Weights & Biases and MLflow themselves, without a network: numbers and pictures arrive, and a resumed run is the same run."""

import json
import time

import numpy as np
import pytest
import tracked
from PIL import Image

from vit_jax.metrics.trackers import open_trackers
from vit_jax.metrics.writers import MetricWriters, make_writers


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Prepared digits, the server's store, and the workdirs."""
    from vit_jax.data.prepare.prepare import prepare

    folder = tmp_path_factory.mktemp("tracked")
    prepare("digits", data_dir=str(folder / "data"))
    return folder


@pytest.fixture(scope="module")
def server(folder):
    process, address = tracked.start_server(folder)
    try:
        tracked.wait_until(lambda: tracked.answers(address), process)
        yield process, address
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def resumed(folder, server):
    """The workdir of a run that was killed after a checkpoint and started again."""
    workdir = folder / "resumed"
    with tracked.running(workdir, folder / "data", server[1]) as run:  # killed at the end
        tracked.stop_after(7, run, workdir)
    assert max(record["step"] for record in tracked.records(workdir)) < tracked.STEPS
    with tracked.running(workdir, folder / "data", server[1]) as run:
        assert run.wait(tracked.PATIENCE_S) == 0, (folder / "printed.txt").read_text()
    assert "resuming" in (folder / "printed.txt").read_text()
    return workdir


@pytest.mark.slow
def test_a_run_killed_and_started_again_is_one_run_of_an_mlflow_server(resumed, server):
    from mlflow import MlflowClient

    client = MlflowClient(server[1])
    experiment = client.get_experiment_by_name("vit_jax")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == json.loads((resumed / "trackers.json").read_text())["mlflow"]
    assert (run.info.status, run.data.params["model.width"]) == ("FINISHED", "32")
    for name in ("train/loss", "eval/digits/top1"):
        told = {(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)}
        assert told == tracked.history(resumed, name)
    assert len(tracked.history(resumed, "train/loss")) == tracked.STEPS
    pictures = [file.path for file in client.list_artifacts(run.info.run_id, "pictures")]
    assert pictures == ["pictures/digits-12.png", "pictures/digits-6.png"]  # confusion matrices


@pytest.mark.slow
def test_a_run_killed_and_started_again_is_one_run_of_wandb_without_a_network(resumed):
    identity = json.loads((resumed / "trackers.json").read_text())["wandb"]
    rows, stored = tracked.wandb_history(resumed), [*tracked.wandb_records(resumed)]
    for name in ("train/loss", "eval/digits/top1"):
        assert {(row["step"], row[name]) for row in rows if name in row} == tracked.history(resumed, name)
    assert [record.exit.exit_code for record in stored if record.HasField("exit")] == [0]
    assert {record.run.run_id for record in stored if record.HasField("run")} == {identity}


@pytest.mark.slow
def test_a_server_that_goes_away_costs_a_run_one_message_and_seconds(resumed, server, tmp_path, monkeypatch, capfd):
    process, address = server  # no test after this one has it
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with make_writers(
        tmp_path, total_steps=9, start_step=0, trackers=open_trackers(["mlflow"], tmp_path, {})
    ) as writers:
        writers.write(1, {"train/loss": 1.0})
        process.terminate()
        process.wait(30)
        begin = time.monotonic()
        for step in range(2, 10):
            writers.write(step, {"train/loss": 1 / step})
    assert time.monotonic() - begin < 20
    assert tracked.history(tmp_path, "train/loss") == {(step, 1 / step) for step in range(1, 10)}
    assert capfd.readouterr().err.count("mlflow does not take the run's numbers") == 1
