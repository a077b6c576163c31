"""A run, from a config and a workdir to its result.

Order matters: everything that can be wrong is checked before anything is computed or written; the training step compiles
while parameters are drawn or read; nothing in the loop waits for the device but logging, evaluation and saving.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
from clu import parameter_overview
from etils import epath

from vit_jax import config as configs
from vit_jax import peers
from vit_jax.config import Draft
from vit_jax.convert.adapt import format_report
from vit_jax.locks import hold
from vit_jax.metrics.trackers import open_trackers
from vit_jax.metrics.writers import MetricWriters, make_writers
from vit_jax.models.build import count_params
from vit_jax.process import NO_RIGHT, NO_ROOM
from vit_jax.remote import is_url
from vit_jax.run import record
from vit_jax.run.extend import Extension, find_extension, record_extension
from vit_jax.run.hooks import RunHooks
from vit_jax.run.job import Job, build_job, saved_config
from vit_jax.run.mirror import looked_at, mirrored
from vit_jax.run.plan import describe_plan, for_sizes
from vit_jax.run.ready import Ready, bring_up
from vit_jax.run.settle import OF_DEVICES, begun_with
from vit_jax.train.checkpoint import Checkpointer
from vit_jax.train.clock import Clock
from vit_jax.train.folders import FOLDER, check_folder, committed_steps, named_steps, stored_meta
from vit_jax.train.loop import Length, NonFinite, Window, fit
from vit_jax.train.patience import Patience
from vit_jax.types import UserError, counted

MOVED = "from here on results equal those of one device to rounding, and not to the bit"


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Args:
      workdir: the folder or URL that holds everything the run wrote.
      step: optimizer steps taken.
      scores: the last evaluation, `eval/<name>/<metric>` and `eval_average/<name>/<metric>`.
      seconds: wall-clock time of this process's part.
    """

    workdir: Path | str
    step: int
    scores: dict[str, float]
    seconds: float


def run(
    config: Draft,
    workdir: str | Path,
    *,
    overrides: list[tuple[str, str]] | None = None,
    quiet: bool = False,
    wait: bool = False,
    extend: bool = False,
) -> RunResult:
    """Trains and evaluates as the config says, or resumes the run that `workdir` holds; writes everything to `workdir`.

    Args:
      config: as a config file returns it; completed in place.
      workdir: a new folder, or the folder of this same run; or a URL, `gs://bucket/run`.
      overrides: (`a.b`, text) from `--config.a.b=text`.
      quiet: write nothing to the console.
      extend: make the run in `workdir` longer even if the longer schedule changes learning rates of finished steps; see `extend`.
      wait: wait until another process that uses `workdir` ends; without it, such a process is an error.

    Raises:
      UserError: a mistake that the user can correct. Nothing is lost: existing checkpoints stay.
      Interrupted: the run was asked to stop, and has saved.
    """
    if is_url(workdir):
        with mirrored(str(workdir), wait=wait) as mirror:
            stage, kind = epath.Path(mirror.folder), mirror.checkpointer()
            return dataclasses.replace(_run(config, stage, overrides, True, quiet, extend, kind), workdir=str(workdir))
    folder, primary = epath.Path(workdir).expanduser(), jax.process_index() == 0
    check_folder(folder)
    # Lock the folder before looking at anything in it. In a run of several processes, the first holds the lock for all.
    with hold(Path(folder), wait=wait) if primary else contextlib.nullcontext():
        return _run(config, folder, overrides, primary, quiet, extend, Checkpointer)


def dry_run(
    config: Draft, workdir: str | Path, *, overrides: list[tuple[str, str]] | None = None, extend: bool = False
) -> str:
    """The plan of `run` with the same arguments, for a person to read; trains nothing and writes nothing.

    Raises:
      UserError: as `run`, for what can be known before it compiles.
    """
    if is_url(workdir):
        with looked_at(str(workdir)) as copy:
            return dry_run(config, copy, overrides=overrides, extend=extend)
    folder = epath.Path(workdir).expanduser()
    check_folder(folder)
    job, _ = _check(config, folder, overrides, extend)
    steps = committed_steps(folder / FOLDER)
    flops = job.parts.mean_flops(job.batch_size, job.sizes)
    return describe_plan(job, flops, steps[-1] if steps else 0)


def _check(
    config: Draft, folder: epath.Path, overrides: list[tuple[str, str]] | None, extend: bool
) -> tuple[Job, Extension | None]:
    """The job, and how it makes the run in its workdir longer, if it does."""
    old = saved_config(folder)
    decided = record.saved_decisions(folder)
    begun = begun_with(old, decided, jax.default_backend()) if old else None
    job = build_job(config, overrides, old, begun)
    by_device = {f"model.{key}" for key in OF_DEVICES} & {decision.key for decision in job.settled}
    free = by_device & decided.keys() | {"model.remat"}  # which changes no number
    extension = find_extension(job, folder, old, free, asked=extend)
    if extension is None:
        record.check_workdir(folder, configs.to_dict(job.config), old, free)
    return job, extension


def _run(
    config: Draft,
    folder: epath.Path,
    overrides: list[tuple[str, str]] | None,
    primary: bool,
    quiet: bool,
    extend: bool,
    kind: type[Checkpointer],
) -> RunResult:
    """Does the work of `run` in a folder that this run holds alone."""
    began = time.perf_counter()
    job, extension = _check(config, folder, overrides, extend)
    if jax.process_count() > 1:
        from vit_jax.run.agreement import facts

        peers.agree("start", facts(job, folder))
    checkpointer = configs.build(kind, job.config.checkpoint, job.to_steps, directory=folder)
    with contextlib.closing(checkpointer):
        try:
            return _run_job(job, folder, checkpointer, primary, quiet, began, extension)
        except OSError as error:
            if error.errno in NO_RIGHT:
                raise record.no_right(folder, error) from error
            if error.errno not in NO_ROOM:
                raise
            raise checkpointer.failure(f"a file in {error.filename or folder}", error) from error


def _run_job(
    job: Job,
    folder: epath.Path,
    checkpointer: Checkpointer,
    primary: bool,
    quiet: bool,
    began: float,
    extension: Extension | None = None,
) -> RunResult:
    """Trains a checked run from its last checkpoint to its end; skips training if the run is already complete."""
    start_step = checkpointer.latest_step() or 0
    ended = start_step >= job.total_steps or _patience(job, folder, start_step).is_over
    if ended and (folder / "run.json").exists():
        if primary and not quiet:
            text = f"{checkpointer.workdir} holds this run already, finished at step {start_step}; nothing to train"
            print(text, flush=True)
        scores = record.last_scores(folder) if primary else {}
        return RunResult(Path(folder), start_step, scores, time.perf_counter() - began)
    record.check_writable(folder)
    # Do everything that can still fail before claiming the workdir: writing config.json is the point of no return.
    if primary and not quiet and not ended:
        print(f"compiling the training step{for_sizes(job)}", flush=True)
    clock = Clock(folder if primary else None)
    clock.add("start", time.perf_counter() - began)
    with clock.spend("compile"):
        ready = None if ended else bring_up(job, folder, checkpointer, start_step)
    if primary:
        record.claim_workdir(folder, configs.to_dict(job.config), job.settled)
        if extension:
            record_extension(folder, extension, configs.to_dict(job.config))
    names = job.config.train.trackers if primary else ()
    trackers = open_trackers(names, folder, configs.to_dict(job.config))
    options: dict[str, Any] = {"primary": primary, "quiet": quiet, "trackers": trackers}
    with make_writers(folder, total_steps=job.total_steps, start_step=start_step, **options) as writers:
        if extension:
            writers.notice(str(extension))
        if ready:
            start_step = _train(job, folder, checkpointer, ready, writers, clock)
            writers.notice(f"time: {clock}")
        else:  # the run was killed after its last checkpoint, before it removed the checkpoints that it does not keep
            checkpointer.tidy()
    flops = ready.flops if ready else job.parts.mean_flops(job.batch_size, job.sizes)
    return _finish(job, folder, start_step, flops, time.perf_counter() - began, primary, clock)


def _patience(job: Job, folder: epath.Path, step: int) -> Patience:
    """How long the run has waited for a better score by a step."""
    limit = job.config.train.patience
    meta = stored_meta(folder / FOLDER / str(step)) if limit else {}
    return Patience.resume(job.config.checkpoint.best_metric, limit, meta)


def _train(
    job: Job, folder: epath.Path, checkpointer: Checkpointer, ready: Ready, writers: MetricWriters, clock: Clock
) -> int:
    """Trains to the end; returns the last step."""
    config, parts, start_step = job.config, job.parts, ready.start_step
    patience = _patience(job, folder, start_step)
    if start_step:
        writers.notice(f"resuming {checkpointer.workdir} from step {start_step}")
        before = ready.meta.get("config", {}).get("model", {})
        if moved := configs.differences(before, configs.to_dict(config)["model"]):
            writers.notice(f"another device than before: model.{', model.'.join(moved)}; {MOVED}")
    elif jax.process_index() == 0:
        overview = parameter_overview.get_parameter_overview(parts.abstract.params, include_stats=False)
        (folder / "parameters.txt").write_text(overview + "\n")
    if ready.fates:
        writers.notice(f"parameters from {config.init.path}: {format_report(ready.fates)}")
        if jax.process_index() == 0:
            (folder / "init_report.txt").write_text(format_report(ready.fates, every_leaf=True) + "\n")
    writers.notice(describe_plan(job, ready.flops, start_step))
    loader = job.data.batches(
        job.source,
        seed=config.seed,
        start_step=start_step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        corrupt=ready.meta.get("data", {}).get("corrupt", ()),
    )
    try:
        with contextlib.closing(loader):
            state = fit(
                ready.state,
                train_step=ready.train_step,
                batches=loader,
                mesh=parts.mesh,
                length=Length(
                    start_step=start_step,
                    total_steps=job.total_steps,
                    steps_per_epoch=job.steps_per_epoch,
                    batch_size=job.batch_size,
                    log_every=max(job.to_steps(config.train.log_every), 1),
                ),
                hooks=RunHooks(job, folder, loader, patience, writers),
                window=Window(ready.meta.get("pending")),
                clock=clock,
                checkpointer=checkpointer,
                writers=writers,
            )
    except NonFinite as error:
        raise UserError(
            f"{error}; the run stops, and {checkpointer.last_good()}. Lower optim.lr, lengthen optim.warmup, or set "
            f"optim.clip_norm=1, and give a new --workdir; --config.init=CHECKPOINT starts from its weights"
        ) from error
    if loader.corrupt:
        number, verb = len(loader.corrupt), "was" if len(loader.corrupt) == 1 else "were"
        found = f"{counted(number, 'corrupt image')} {verb} replaced"
        writers.notice(f"{found}: {', '.join(sorted(loader.corrupt))}")
    if patience.is_over:
        writers.notice(str(patience))
    return int(state.step)


def _finish(
    job: Job, folder: epath.Path, step: int, flops: int, seconds: float, primary: bool, clock: Clock
) -> RunResult:
    """Writes run.json and the curves, and reads the last evaluation from the record."""
    scores = record.last_scores(folder) if primary else {}
    if primary:
        from vit_jax.cards.facts import of_run, write_card
        from vit_jax.metrics.curves import plot_curves

        result = {
            **record.surroundings(),
            "config": configs.to_dict(job.config),
            "data": [spec.to_json() for spec in job.specs],
            "preprocessing": job.preprocessing(),
            "num_params": count_params(job.parts.abstract.params),
            "train_flops_per_image": flops,
            "steps": step,
            "seconds": round(seconds, 1),
            "time": {kind: round(share, 4) for kind, share in clock.shares().items()},
            "scores": scores,
            "checkpoints": named_steps(folder),
        }
        record.write_json(folder / "run.json", result)
        write_card(folder, of_run(folder.name, result))
        plot_curves({folder.name: folder / "metrics.jsonl"}, folder / "curves.png")
    return RunResult(Path(folder), step, scores, seconds)
