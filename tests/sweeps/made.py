"""Sweeps for tests: a config file that describes one, results as runs leave them, and an executor that runs nothing."""

import dataclasses
import json

from vit_jax.sweeps.grid import identity_of
from vit_jax.sweeps.results import Result, write_result

CONFIG = """
from ml_collections import ConfigDict

SECTIONS = ("model", "data", "objective", "optim", "train", "evals", "checkpoint", "init")


def get_config(text=None):
    config = ConfigDict({name: {} for name in SECTIONS})
    config.optim.lr = 0.5
    config.data.dataset = text
    config.seed = 0
    return config


def get_sweep(text=None):
    names = (text or "a+b").split("+")
    tasks = [
        {"name": n, "title": n.upper(), "group": "", "dataset": n, "dev": f"{__file__}:{n}-dev", "final": f"{__file__}:{n}"}
        for n in names
    ]
    return {
        "title": "Two of them", "layout": "list", "label": "tiny", "metric": "top1", "tasks": tasks,
        "candidates": {"optim.lr": (0.1, 0.2, 0.4)}, "seeds": (0, 1),
    }
"""


def result_of(run, top1, **changes):
    """A plausible result of a run."""
    result = Result(
        task=run.task,
        phase=run.phase,
        candidate=run.candidate,
        seed=run.seed,
        identity=identity_of(run),
        config_hash="c0",
        command="python",
        dataset=run.task,
        splits={"train": "train", "scored": "test"},
        resolution=(8, 8),
        preprocessing={},
        num_examples=10,
        num_train_examples=100,
        num_params=7,
        train_flops=1000,
        scores={"top1": top1},
        average_scores={},
        seconds=1.0,
        device="1 x cpu",
        surroundings={},
        class_names=("x", "y"),
    )
    return dataclasses.replace(result, **changes)


def leave_result(folder, run, top1, **changes):
    """Writes a run's result where the driver looks."""
    place = run.folder(folder)
    place.mkdir(parents=True, exist_ok=True)
    write_result(place, result_of(run, top1, **changes))


SCORES = {0.1: 0.3, 0.2: 0.8, 0.4: 0.5}


class Pretending:
    """Runs end at once, as `behave(folder, job)` says: it returns a score, or leaves an outcome, or crashes (None)."""

    def __init__(self, behave, slots=2, adopted=()):
        self._behave, self._slots, self._adopted = behave, slots, set(adopted)
        self.started, self._over, self.most = [], [], 0

    def room(self):
        return self._slots - len(self._over)

    def adopt(self, folder):
        if f"{folder.parent.name}/{folder.name}" in self._adopted:
            self._over.append(folder)
            return True
        return False

    def start(self, folders):
        for folder in folders:
            self.started.append(f"{folder.parent.name}/{folder.name}")
            self._over.append(folder)
        self.most = max(self.most, len(self._over))

    def ended(self):
        over, self._over = self._over, []
        for folder in over:
            self._behave(folder)
        return over

    def stop(self):
        return ""


def succeed(grid):
    runs = {}

    def behave(folder):
        job = json.loads((folder / "job.json").read_text())["run"]
        task = job["task"]
        runs.update({r.name: r for r in grid.dev_runs(task)})
        runs.update({r.name: r for c in grid.candidates() for r in grid.final_runs(task, c)})
        write_result(folder, result_of(runs[folder.name], SCORES[job["candidate"]["optim.lr"]], task=task))

    return behave
