"""For tests of trackers: an MLflow server on this machine, a run that is killed and started again, and the trackers' records."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STEPS, PATIENCE_S = 12, 120
CONFIG = {
    "model.width": 32,
    "model.depth": 1,
    "model.mlp_dim": 32,
    "model.num_heads": 1,
    "train.duration": STEPS,
    "train.log_every": 1,
    "checkpoint.every": 4,
    "evals.digits.split": "test[:100]",
    "evals.digits.every": 6,
    "evals.digits.confusion": True,
    "evals.fewshot.train_split": "train[:100]",
    "evals.fewshot.test_split": "test[:100]",
}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_until(happened, process, seconds=PATIENCE_S):
    """Polls; fails if the process ends first."""
    until = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, f"ended with {process.returncode} first"
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.01)


def start_server(folder):
    """Starts `mlflow server` on a store in SQLite; returns its process and its address, which answers some seconds later."""
    port = free_port()
    words = (
        f"-m mlflow server --host=127.0.0.1 --port={port} --workers=1 --backend-store-uri=sqlite:///{folder}/store.db"
    )
    words = [sys.executable, *words.split(), f"--artifacts-destination={folder}/artifacts"]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with open(folder / "server.txt", "wb") as printed:
        return subprocess.Popen(words, env=environment, stdout=printed, stderr=printed), f"http://127.0.0.1:{port}"


def answers(address):
    """Whether a server of MLflow does."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
        return answer.status == 200


@contextlib.contextmanager
def running(workdir, data_dir, address):
    """A small run that tells both trackers, in a process group of its own, which is gone at the end."""
    config = CONFIG | {"data.data_dir": data_dir, "train.trackers": "mlflow,wandb"}
    words = [sys.executable, "-m", "vit_jax", "train", "--config=quickstart:pretrain,smoke", f"--workdir={workdir}"]
    # Without the address of the wandb process that this one may have started: it would keep a killed run's id in use.
    environment = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"} | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "compiled"),
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "MLFLOW_TRACKING_URI": address,
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
    }
    words += [f"--config.{key}={value}" for key, value in config.items()]
    with open(workdir.parent / "printed.txt", "ab") as printed:
        process = subprocess.Popen(
            words, cwd=ROOT, env=environment, stdout=printed, stderr=printed, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def stop_after(step, process, workdir):
    """Stops a run that has recorded a step and saved one before, and gives wandb, a process of its own, 5 s to write that."""
    saved = step // CONFIG["checkpoint.every"] * CONFIG["checkpoint.every"]
    folder = workdir / "checkpoints" / str(saved)
    wait_until(lambda: step in {record["step"] for record in records(workdir)} and folder.exists(), process)
    os.kill(process.pid, signal.SIGSTOP)
    wait_until(lambda: saved in {row["step"] for row in wandb_history(workdir)}, process, seconds=5)


def records(workdir):
    """The whole lines of metrics.jsonl."""
    file = workdir / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def history(workdir, name):
    """{(step, value)} of a number in metrics.jsonl."""
    return {(record["step"], record[name]) for record in records(workdir) if name in record}


def wandb_history(workdir):
    """The rows of numbers that lie in a workdir's .wandb files."""
    stored = [record.history.item for record in wandb_records(workdir) if record.HasField("history")]
    return [{item.key or item.nested_key[0]: json.loads(item.value_json) for item in items} for items in stored]


def wandb_records(workdir):
    """The records of a workdir's .wandb files: LevelDB's log format after seven bytes, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    for file in sorted(workdir.glob("wandb/offline-run-*/run-*.wandb")):
        stored, at, parts = file.read_bytes(), 7, b""
        while at + 7 <= len(stored):
            if 32768 - at % 32768 < 7:
                at += 32768 - at % 32768
                continue
            size, kind = int.from_bytes(stored[at + 4 : at + 6], "little"), stored[at + 6]
            parts, at = parts + stored[at + 7 : at + 7 + size], at + 7 + size
            if at <= len(stored) and kind in (1, 4):  # whole, or the last part
                yield Record.FromString(parts)
                parts = b""
