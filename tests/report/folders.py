"""Sweeps on disk as the driver leaves them, small and with numbers put there by hand: what the report's tests read."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

from vit_jax.data.vtab.tasks import TASKS
from vit_jax.report.collect import collect
from vit_jax.report.layouts import make_tables
from vit_jax.sweeps.results import (
    Result,
    Sweep,
    SweepTask,
    hash_of,
    run_folder,
    write_result,
    write_sweep,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
VERSIONS = {"jax": "0.11.0", "flax": "0.12.1", "numpy": "2.3.1"}
NUM_EXAMPLES = 200
# A name that would change a page if it were not escaped.
HOSTILE = "</title><script>alert(1)</script><img src=x onerror=alert(2)> & \"quoted' {{ 7*7 }}"
OURS = "ViT-Ti/16 (ours)"  # the row of these sweeps in the paper's tables


def tables(*folders):
    """The report's tables of some sweeps, by name."""
    return {table.name: table for table in make_tables(collect(folders))}


def cell(table, row, column):
    """By the names of row and column; a mean's column is `mean NAME`."""
    names = [f"mean {head.title}" if head.kind == "mean" else head.title for head in table.columns]
    rows = [head.title for head in table.rows]
    return table.cells[rows.index(row)][names.index(column)]


def vtab_sweep(**changes) -> Sweep:
    """19 tasks, one candidate, three seeds."""
    tasks = tuple(
        SweepTask(name=f"vtab-{name}", title=task.title, group=task.group, dataset=f"vtab/{name}")
        for name, task in TASKS.items()
    )
    settings = {
        "title": "VTAB-1k, 2,500 steps at 384 pixels",
        "layout": "vtab",
        "label": "ViT-Ti/16 (ours)",
        "config": "configs/vtab.py:init=runs/pretrained",
        "metric": "top1",
        "tasks": tasks,
        "candidates": {"optim.lr": (0.01,)},
        "seeds": (0, 1, 2),
        "tasks_in_mean": 19,
    }
    return Sweep(**settings | changes)


def transfer_sweep(*, titles=("CIFAR-10", "Pets", "Digits"), **changes) -> Sweep:
    """Some data sets, four learning rates, three seeds."""
    datasets = {
        "CIFAR-10": "cifar10",
        "Pets": "oxford_iiit_pet",
        "Digits": "digits",
        "ImageNet": "imagenet2012",
        "Flowers": "oxford_flowers102",
    }
    tasks = tuple(SweepTask(name=(name := datasets.get(t, t)), title=t, group="", dataset=name) for t in titles)
    settings = {
        "title": "Fine-tuning, the learning rate chosen on a development split",
        "layout": "transfer",
        "label": "ViT-Ti/16 (ours)",
        "config": "configs/finetune.py:variant=Ti/16",
        "metric": "top1",
        "tasks": tasks,
        "candidates": {"optim.lr": (0.001, 0.003, 0.01, 0.03)},
        "seeds": (0, 1, 2),
    }
    return Sweep(**settings | changes)


def result(task: str, score: float, *, seed=0, phase="final", lr=0.01, metric="top1", names=("cat", "dog"), **changes):
    """A result of one run; `score` becomes that of its metric."""
    settings = {
        "task": task,
        "phase": phase,
        "candidate": {"optim.lr": lr},
        "seed": seed,
        "identity": hash_of([task, phase, lr, seed]),
        "config_hash": hash_of(["config", task, phase, lr, seed]),
        "command": f"vit_jax train --config=configs/vtab.py:task={task} --config.seed={seed}",
        "dataset": task,
        "splits": {"train": "train800", "scored": "val200" if phase == "dev" else "test"},
        "resolution": (384, 384),
        "preprocessing": {"recipe": "eval", "kernel": "bilinear", "range": [-1, 1]},
        "num_examples": NUM_EXAMPLES,
        "num_train_examples": 1_280_000,
        "num_params": 5_526_346,
        "train_flops": 21_000_000_000_000_000,
        "scores": {metric: score},
        "average_scores": {},
        "seconds": 61.5,
        "device": "1 cpu",
        "surroundings": {
            "started": f"2026-03-0{1 + seed}T10:00:00+00:00",
            "git": {"commit": COMMIT, "modified": False},
            "python": "3.11.7",
            "platform": "Linux",
            "versions": VERSIONS,
        },
        "class_names": tuple(names),
    }
    return Result(**settings | changes)


def write_run(sweep_folder: Path, found: Result, *, curves=False) -> Path:
    """One run's folder: config, log, result, and metrics where asked for."""
    name = f"{found.phase}-lr{found.candidate.get('optim.lr', '')}-seed{found.seed}"
    folder = run_folder(sweep_folder, found.task, name)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"seed": found.seed}))
    (folder / "log.txt").write_text("step 1\n")
    if curves:
        loss = [
            {"step": s, "train/loss": 2.0 / (1 + s / 10) + 0.01 * found.seed, "train/lr": 0.01} for s in range(1, 101)
        ]
        top1 = [{"step": s, "eval/test/top1": found.scores["top1"] * (1 - 8 / s)} for s in range(20, 101, 20)]
        records = sorted([*loss, *top1], key=lambda record: record["step"])
        (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    write_result(folder, found)
    return folder


def write_predictions(folder: Path, labels, predicted) -> None:
    """What a run predicted for its scored split."""
    labels, predicted = np.asarray(labels, np.int32), np.asarray(predicted, np.int32)
    confidence = np.linspace(0.5, 1, len(labels), dtype=np.float32)
    np.savez(
        folder / "predictions.npz",
        index=np.arange(len(labels)),
        label=labels,
        predicted=predicted,
        confidence=confidence,
    )


def write_mistakes(folder: Path, *, label=0, predicted=1, files=("0.png",), side=8) -> None:
    """Images that were predicted wrongly, each of one grey."""
    place = folder / "mistakes"
    place.mkdir()
    listed = []
    for number, file in enumerate(files):
        (place / file).write_bytes(grey_png(side, 40 + 15 * number))
        about = {"file": file, "index": number, "label": label, "predicted": predicted, "name": f"example {number}"}
        listed.append(about | {"confidence": 0.9921})
    (place / "mistakes.json").write_text(json.dumps(listed))


def grey_png(side: int, grey: int) -> bytes:
    """A PNG of one grey, diagonal white."""
    pixels = np.full((side, side), grey, np.uint8)
    np.fill_diagonal(pixels, 255)
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = side.to_bytes(4, "big") + side.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def vtab_score(number: int, seed: int) -> float:
    """Of the task in this place of table 9: 0.50, 0.52, ... and a hundredth more for each seed."""
    return 0.50 + 0.02 * number + 0.01 * seed


def write_vtab(folder: Path, *, leave_out=(), score=vtab_score, **changes) -> Sweep:
    """A whole sweep of table 9 but for the runs in `leave_out`: (task's place, seed) or a task's place alone."""
    sweep = vtab_sweep(**changes)
    folder.mkdir(parents=True, exist_ok=True)
    write_sweep(folder, sweep)
    for number, task in enumerate(sweep.tasks):
        for seed in sweep.seeds:
            if number not in leave_out and (number, seed) not in leave_out and not task.missing:
                write_run(folder, result(task.name, score(number, seed), seed=seed))
    return sweep


def write_transfer(folder, *, names=("cat", "dog"), label="ViT-Ti/16", leave_out=(), **changes):
    """Three tasks at four learning rates and three seeds; 0.01 is the best; predictions, curves and mistakes."""
    sweep = transfer_sweep(label=label, **changes)
    folder.mkdir(parents=True, exist_ok=True)
    write_sweep(folder, sweep)
    for number, task in enumerate(sweep.tasks):
        for lr, score in zip((0.001, 0.003, 0.01, 0.03), (0.5, 0.7, 0.8, 0.6), strict=True):
            write_run(folder, result(task.name, score - 0.1 * number, phase="dev", lr=lr, names=names), curves=True)
        for seed in sweep.seeds:
            if (number, seed) in leave_out:
                continue
            num = 8 if seed else 6
            found = result(task.name, num / 10, seed=seed, num_examples=10, names=names)
            place = write_run(folder, found, curves=True)
            write_predictions(place, [0] * 5 + [1] * 5, [0] * 5 + [1] * (num - 5) + [0] * (10 - num))
            write_mistakes(place, label=1, predicted=0)
    return sweep
