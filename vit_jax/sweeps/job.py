"""One run of a sweep, in a process of its own: `python -m vit_jax.sweeps.job FOLDER`.

FOLDER/job.json names the run; FOLDER/result.json, written last, is its result; FOLDER/outcome.json says how the process ended,
with the exit codes of `main`: 0 done, 2 a mistake that the user can correct, 75 stopped and saved. Only one process works in a
folder: a second one waits for the first to end, and then has nothing to do, or resumes from its last checkpoint.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from vit_jax import config as configs
from vit_jax.files import read_json
from vit_jax.locks import hold
from vit_jax.process import (
    EXIT_INTERRUPTED,
    EXIT_USER_ERROR,
    before_end,
    begin,
    finish,
    set_up_process,
)
from vit_jax.run.record import read_run, surroundings, write_json
from vit_jax.sweeps.grid import Run, identity_of, probe_config
from vit_jax.sweeps.results import PREDICTIONS_FILE, Result, hash_of, read_as, read_result, write_result
from vit_jax.types import KINDS, Metric, UserError

Keep = Literal["final", "all", "none"]  # the runs whose checkpoints are kept when they are done
JOB_FILE, OUTCOME_FILE, LOG_FILE = "job.json", "outcome.json", "log.txt"


@dataclasses.dataclass(frozen=True)
class Job:
    """The task of one process of a sweep; `job.json`.

    Args:
      run: the run.
      identity: hash of the run's request, from `identity_of`.
      keep: whether its checkpoints are kept when it is done.
    """

    run: Run
    identity: str
    keep: bool


def write_job(folder: Path, run: Run, keep: Keep) -> None:
    """Writes the input of `python -m vit_jax.sweeps.job FOLDER`, and removes the outcome of an earlier process."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / OUTCOME_FILE).unlink(missing_ok=True)
    write_json(folder / JOB_FILE, dataclasses.asdict(Job(run, identity_of(run), keep in ("all", run.phase))))


def read_outcome(folder: Path) -> tuple[int, str] | None:
    """Exit code and message of the last process that ended by itself; None if it was killed, runs, or left a damaged file."""
    file = folder / OUTCOME_FILE
    if not file.exists():
        return None
    try:
        outcome = read_json(file)
    except UserError:
        return None
    code, message = outcome.get("code"), outcome.get("message")
    return (code, message) if isinstance(code, int) and isinstance(message, str) else None


def is_over(folder: Path) -> bool:
    """Whether a run ended by itself: it is done, or has reported a problem that the user has to solve."""
    outcome = read_outcome(folder)
    return outcome is not None and outcome[0] != EXIT_INTERRUPTED


def main(argv: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cores", default="", help="numbers of the cores to run on, 0,1,2; default all")
    parser.add_argument("--parent", type=int, default=0, help="process without which this one stops, and saves")
    flags = parser.parse_args(argv)
    if flags.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in flags.cores.split(",")})
    if flags.parent:
        threading.Thread(target=_stop_without, args=(flags.parent,), daemon=True).start()

    def write_outcome(code: int, message: str) -> None:
        write_json(flags.folder / OUTCOME_FILE, {"code": code, "message": message})

    with hold(flags.folder, wait=True):
        (flags.folder / OUTCOME_FILE).unlink(missing_ok=True)  # a requeued job's last start may have left one
        with before_end(write_outcome):
            code, message = _work(flags.folder)
        write_outcome(code, message)  # before another process may work in the folder
    print(message, file=sys.stderr if code == EXIT_USER_ERROR else sys.stdout, flush=True)
    return code


def _stop_without(parent: int) -> None:
    """Stops this process, as SIGTERM does, when its parent process is gone (`kill -9` sends no signal to children)."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _work(folder: Path) -> tuple[int, str]:
    from vit_jax.train.loop import Interrupted, NonFinite

    try:
        job = read_as(Job, folder / JOB_FILE, "start the sweep again, which writes it again")
        run, identity = job.run, identity_of(job.run)
        if identity != job.identity:
            raise UserError(
                f"{run.config} has changed since the sweep was started; undo the change and start the sweep again, or give "
                "what it is now a --workdir of its own"
            )
        done = read_result(folder)
        if done is None:
            set_up_process()
            write_result(folder, (_probe if run.kind == "fewshot" else _train)(folder, run, identity))
        if not job.keep:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return 0, "done"
    except Interrupted as stopped:
        return EXIT_INTERRUPTED, str(stopped)
    except UserError as error:
        if isinstance(error.__cause__, NonFinite):  # this is a result: the candidate is worse than any other
            write_result(folder, _diverged(folder, run, identity))
            return 0, f"diverged: {error}"
        return EXIT_USER_ERROR, f"error: {error}"


def _train(folder: Path, run: Run, identity: str) -> Result:
    """Trains, or resumes, and returns the result."""
    from vit_jax.data.image.recipes import describe_transform, make_transform
    from vit_jax.run import run as train
    from vit_jax.sweeps.mistakes import write_mistakes

    config = configs.load(run.config)
    train(config, folder, overrides=list(run.overrides))
    made = read_run(folder)
    resolved = made["config"]
    name = evaluator_of(run, resolved["evals"])
    scored = resolved["evals"][name]
    scores = {kind: _scores_of(made["scores"], kind, name) for kind in KINDS}
    kept = folder / "predictions" / f"{name}.npz"
    if kept.exists():
        kept.replace(folder / PREDICTIONS_FILE)
    write_mistakes(folder, scored)
    resolution = tuple(scored["resolution"])
    steps, batch = made["steps"], resolved["data"]["batch_size"]
    return _result(
        run,
        identity,
        {key: made[key] for key in surroundings()},
        config_hash=hash_of(resolved),
        dataset=resolved["data"]["dataset"],
        splits={"train": resolved["data"]["split"], "scored": scored["split"]},
        resolution=resolution,
        preprocessing=describe_transform(make_transform(scored["recipe"], resolution)),
        num_examples=int(scores["eval"].pop("num_examples")),
        num_train_examples=steps * batch,
        num_params=made["num_params"],
        train_flops=made["train_flops_per_image"] * steps * batch,
        scores=scores["eval"],
        average_scores={k: v for k, v in scores["eval_average"].items() if k != "num_examples"},
        seconds=made["seconds"],
        class_names=tuple(made["data"][0]["class_names"]),
    )


def evaluator_of(run: Run, evaluators: Iterable[str]) -> str:
    """The evaluator whose scores count for the run: `dev` or `test`, after its phase, or the only one.

    Raises:
      UserError: there are several, and none has that name.
    """
    name, names = {"dev": "dev", "final": "test"}[run.phase], sorted(evaluators)
    if name not in names and len(names) != 1:
        raise UserError(f"{run.config} has evals {', '.join(names)}; a sweep compares one: call it {name}")
    return name if name in names else names[0]


def _diverged(folder: Path, run: Run, identity: str) -> Result:
    """The result of a run whose loss did not stay finite: all scores are nan."""
    resolved = read_json(folder / "config.json")
    scored = resolved["evals"][evaluator_of(run, resolved["evals"])]
    return _result(
        run,
        identity,
        surroundings(),
        config_hash=hash_of(resolved),
        dataset=resolved["data"]["dataset"],
        splits={"train": resolved["data"]["split"], "scored": scored["split"]},
        resolution=tuple(scored["resolution"]),
        preprocessing={},
        num_examples=0,
        num_train_examples=0,
        num_params=0,
        train_flops=0,
        scores=dict.fromkeys(("top1", "top5", "loss"), math.nan),
        average_scores={},
        seconds=0.0,
        class_names=(),
    )


def _probe(folder: Path, run: Run, identity: str) -> Result:
    """Scores frozen features."""
    from vit_jax.data.image.recipes import describe_transform, make_transform
    from vit_jax.sweeps.probe import probe

    began = time.perf_counter()
    config = probe_config(run)
    measured = probe(config, folder.parents[2] / "features")
    for shots, classes in measured["short"].items():
        print(f"{config.dataset}: {classes} classes have fewer than {shots} examples and give those they have")
    described = configs.to_dict(config)
    recipe = described.get("evaluator", {}).get("recipe", "fewshot")
    write_json(folder / "config.json", described)
    return _result(
        run,
        identity,
        surroundings(),
        config_hash=hash_of(described),
        dataset=config.dataset,
        splits={"train": config.train_split, "scored": config.test_split},
        resolution=measured["resolution"],
        preprocessing=describe_transform(make_transform(recipe, measured["resolution"])),
        num_examples=measured["num_examples"],
        num_train_examples=0,
        num_params=measured["num_params"],
        train_flops=measured["flops"],
        scores=measured["scores"],
        average_scores={},
        seconds=round(time.perf_counter() - began, 1),
        class_names=tuple(measured["class_names"]),
    )


def _result(run: Run, identity: str, around: dict[str, Any], **fields: Any) -> Result:
    """Builds the result of a run from its request, its surroundings, and its figures."""
    kinds = around["devices"]
    return Result(
        task=run.task,
        phase=run.phase,
        candidate=run.candidate,
        seed=run.seed,
        identity=identity,
        command=_command(run),
        device=f"{len(kinds)} x {kinds[0]}",
        surroundings=around,
        **fields,
    )


def _scores_of(scores: dict[str, float], kind: str, name: str) -> dict[str, float]:
    metrics = ((Metric.parse(key), value) for key, value in scores.items())
    return {metric.name: value for metric, value in metrics if metric and metric[:2] == (kind, name)}


def _command(run: Run) -> str:
    """The command that does this run alone."""
    if run.kind == "fewshot":
        config = run.config.replace(",dataset=", ",sets=") + f",seeds={run.seed + 1}"
        words = ["vit_jax", "sweep", f"--config={config}", "--workdir=DIR"]
    else:
        words = ["vit_jax", "train", f"--config={run.config}", "--workdir=DIR"]
    changed = [pair for pair in run.overrides if run.kind == "train" or pair[0] != "seed"]
    return shlex.join(words + [f"--config.{key}={value}" for key, value in changed])


if __name__ == "__main__":
    begin("stopped; the same command resumes")
    finish(main)
