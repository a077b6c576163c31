"""Checkpoints: the only file that calls Orbax. A checkpoint is arrays plus one JSON that describes them.

Items `params`, `opt_state`, `average` and `scalars` (step, rng) are saved apart, so that parameters can be read alone;
`meta` holds the facts that a later reader needs: step, position in the data, resolved config, class names, preprocessing, grid.
A step that was being written when the process died never counts as a checkpoint: Orbax writes to a temporary folder and
commits by renaming it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
from typing import Any

import jax
import numpy as np
from etils import epath

from vit_jax.train.checksum import checksum, compare, examine, same_step, seal, unseal
from vit_jax.train.folders import FOLDER, check_folder, committed_steps, how_to_go_on
from vit_jax.train.quiet import quiet
from vit_jax.types import Duration, Metric, TrainState, UserError

FORMAT = 1


class Checkpointer:
    """Saves and restores a run's state.

    Args:
      directory: the run's workdir; checkpoints go to `checkpoints/STEP` in it.
      every: how often to save; the last step and an interrupted one are always saved.
      keep_last: newest checkpoints kept.
      keep_best: checkpoints with the best `best_metric` kept in addition; 0 for none.
      best_metric: an evaluation result, higher is better, such as `eval/test/top1`; "" for none.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        every: Duration = "5%",
        keep_last: int = 2,
        keep_best: int = 0,
        best_metric: str = "",
    ):
        if keep_best and not best_metric:
            raise UserError("checkpoint.keep_best needs checkpoint.best_metric, for example eval/test/top1")
        self.every = max(int(every), 1)
        self.best_metric = best_metric if keep_best else ""
        self._folder = epath.Path(directory).absolute() / FOLDER
        self._keep = keep_last, keep_best
        self._failed = False
        self._lazy_manager: Any = None
        self._best = -math.inf

    @property
    def workdir(self) -> str:
        """The run's workdir, as messages name it."""
        return str(self._folder.parent)

    @property
    def _manager(self) -> Any:
        if self._lazy_manager is None:
            try:
                self._lazy_manager = _open_manager(self._folder, *self._keep, best=bool(self.best_metric))
                self._best = max([self._best, *self._scores().values()])
            except PermissionError:
                raise
            except Exception as error:  # from Orbax, which reads the scores of every checkpoint
                what = f"the checkpoints in {self._folder} cannot be listed: {_first_line(error)}"
                raise UserError(what + how_to_go_on(self._folder)) from error
        return self._lazy_manager

    def _scores(self) -> dict[int, float]:
        """{step: score} of the checkpoints that have `best_metric`."""
        if not self.best_metric:
            return {}
        metrics = {step: dict(self._lazy_manager.metrics(step) or {}) for step in self._lazy_manager.all_steps()}
        return {step: float(scores[self.best_metric]) for step, scores in metrics.items() if self.best_metric in scores}

    def due(self, step: int) -> bool:
        """Whether the run saves at `step`."""
        return step % self.every == 0

    def latest_step(self) -> int | None:
        """The newest step that was committed, or None."""
        return self._manager.latest_step() if self._folder.exists() else None

    def is_best(self, scores: dict[str, float]) -> bool:
        """Whether evaluation results beat every checkpoint kept so far.

        Raises:
          UserError: the evaluator of `best_metric` has no such metric.
        """
        if self.best_metric not in scores:
            wanted = Metric.parse(self.best_metric)
            siblings = [key for key in scores if wanted and (metric := Metric.parse(key)) and metric[:2] == wanted[:2]]
            if siblings:
                known = ", ".join(siblings)
                raise UserError(f"checkpoint.best_metric={self.best_metric} is not evaluated; choose one of {known}")
            return False
        _ = self._manager  # reads the best score of the run's earlier parts
        return scores[self.best_metric] > self._best

    def save(self, state: TrainState, meta: dict[str, Any], scores: dict[str, float] | None = None) -> None:
        """Starts saving; returns once the arrays have left the device. The files are written in the background.

        Args:
          state: the state to save.
          meta: JSON types; see the module's docstring. `checksums` come from `loop.examine_state`.
          scores: evaluation results of this step, for `keep_best`.

        Raises:
          UserError: this save or the one before it failed; the message names the last good checkpoint.
        """
        import orbax.checkpoint as ocp

        items = {name: ocp.args.StandardSave(tree) for name, tree in items_of(state).items()}
        metrics = {self.best_metric: scores[self.best_metric]} if scores and self.best_metric in scores else None
        manager = self._manager
        # Remembered here: Orbax reads scores from disk, where those of a checkpoint being written are still missing.
        self._best = max([self._best, *(metrics or {}).values()])
        try:
            manager.save(
                int(state.step),
                args=ocp.args.Composite(**items, meta=ocp.args.JsonSave(seal({"format": FORMAT, **meta}))),
                metrics=metrics,
            )
        except Exception as error:  # any failure to write must name the checkpoint that remains
            raise self.failure(f"a checkpoint in {self._folder}", error) from error

    def restore(self, abstract: TrainState, step: int) -> tuple[TrainState, dict[str, Any]]:
        """Reads a checkpoint into the shapes and shardings of `abstract`, whichever devices wrote it.

        Raises:
          UserError: the checkpoint does not hold such a state, or holds other values than were saved.
        """
        import orbax.checkpoint as ocp

        items = {name: ocp.args.StandardRestore(tree) for name, tree in items_of(abstract).items()}
        try:
            read = self._manager.restore(step, args=ocp.args.Composite(**items, meta=ocp.args.JsonRestore()))
            state = TrainState(
                step=read.scalars["step"],
                params=read.params,
                opt_state=read.opt_state,
                average=read.average if abstract.average is not None else None,
                rng=read.scalars["rng"],
            )
            meta = unseal(read.meta)
            mesh = jax.tree.leaves(abstract.params)[0].sharding.mesh
            same_step(folder=step, scalars=int(state.step), meta=meta.get("step"))
            compare(items_of(state), meta, {name: examine(x, mesh)[1] for name, x in items_of(state).items()})
        except Exception as error:  # a damaged folder raises many types; the remedy is the same
            folder = self._folder / str(step)
            what = f"checkpoint {folder} cannot be restored into this run's state: {_first_line(error)}"
            raise UserError(what + how_to_go_on(self._folder, step)) from error
        return state, meta

    def tidy(self) -> None:
        """Removes surplus checkpoints: a kill between a save and its clean-up leaves one too many."""
        manager, steps, (last, best) = self._manager, committed_steps(self._folder), self._keep
        scores = self._scores()
        ranked = sorted(scores, key=lambda step: (scores[step], step))
        kept = steps[-max(last, 1) :] + ranked[max(len(scores) - best, 0) :]
        for step in (step for step in steps if step not in kept):
            manager.delete(step)

    def wait(self) -> None:
        """Waits until everything saved is on disk.

        Raises:
          UserError: a background write failed.
        """
        if self._lazy_manager is None:
            return
        try:
            self._lazy_manager.wait_until_finished()
        except Exception as error:  # as in save
            raise self.failure(f"a checkpoint in {self._folder}", error) from error

    def close(self) -> None:
        """Waits and releases the folder, without raising the errors that `wait` reports."""
        if self._lazy_manager is None:
            return
        try:
            self._lazy_manager.close()
        except Exception as error:
            if not self._failed:
                logging.getLogger(__name__).error("%s", self.failure(f"a checkpoint in {self._folder}", error))
        self._lazy_manager = None

    def last_good(self) -> str:
        """Waits for pending writes and says from which checkpoint the run can resume."""
        if self._lazy_manager is not None:
            with contextlib.suppress(Exception):  # whichever it is, that checkpoint does not count as good
                self._lazy_manager.wait_until_finished()
        good = committed_steps(self._folder)
        newest = f"the last good checkpoint is {self._folder / str(good[-1])}" if good else ""
        return newest or "no checkpoint was saved before"

    def failure(self, what: str, error: Exception) -> UserError:
        """The error for a part of the run that could not be written."""
        self._failed = True
        again = "free disk space (or fix the cause) and start the same command again: it resumes from there"
        return UserError(f"{what} could not be written: {_first_line(error)}\n{self.last_good()}; {again}")


def read_params(folder: epath.Path, *, average: bool) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads only the parameters of a vit_jax checkpoint, on any machine.

    Args:
      folder: from `run_folder`.
      average: read the Polyak average instead of the raw weights.

    Returns:
      ({"a/b/kernel": array}, meta).

    Raises:
      UserError: the checkpoint has no average, or holds other values than were saved.
    """
    import orbax.checkpoint as ocp

    item = folder / ("average" if average else "params")
    if not item.exists():
        raise UserError(f"{folder} holds no averaged weights (train.average_decay was 0); use init.weights=raw")
    quiet()
    with ocp.PyTreeCheckpointer() as checkpointer:
        shapes = checkpointer.metadata(item).item_metadata.tree
        on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
        tree = checkpointer.restore(item, restore_args=on_host)
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
        meta = unseal(checkpointer.restore(folder / "meta"))
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    named = {"/".join(k.key for k in path): value for path, value in leaves}
    compare({item.name: tree}, meta, {item.name: [checksum(x) for x in named.values()]})
    return named, meta


def write_params(workdir: epath.Path, params: Any, meta: dict[str, Any]) -> epath.Path:
    """Writes parameters alone as a checkpoint that `init` and `read_params` read; returns its folder.

    Args:
      workdir: a new folder that `check_folder` accepts; the checkpoint becomes its step 0.
      params: tree of arrays.
      meta: JSON types; `grid` and `config.model` at least.
    """
    import orbax.checkpoint as ocp

    check_folder(workdir, "the folder")
    quiet()
    folder = workdir.absolute() / FOLDER / "0"
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checksums = {"params": [checksum(x) for x in jax.tree.leaves(params)]}
        items = {
            "params": ocp.args.StandardSave(params),
            "meta": ocp.args.JsonSave(seal({"format": FORMAT, **meta, "checksums": checksums})),
        }
        checkpointer.save(folder, ocp.args.Composite(**items))
    return folder


def _first_line(error: Exception) -> str:
    line = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
    return re.split(r" \[(?:source locations|tensorstore_spec)|\. See full TensorStore", line)[0][:300]


def items_of(state: TrainState) -> dict[str, Any]:
    """Splits a state into the items of its checkpoint."""
    items = {
        "params": state.params,
        "opt_state": state.opt_state,
        "scalars": {"step": state.step, "rng": state.rng},
    }
    return items | ({"average": state.average} if state.average is not None else {})


def _open_manager(folder: epath.Path, keep_last: int, keep_best: int, *, best: bool) -> Any:
    import orbax.checkpoint as ocp
    from orbax.checkpoint.checkpoint_managers import preservation_policy as keep

    quiet()
    policies: list[Any] = [keep.LatestN(max(keep_last, 1))]

    def value(metrics: dict[str, float]) -> float:
        return next(iter(metrics.values()))

    if best:
        policies.append(keep.BestN(get_metric_fn=value, n=keep_best, keep_checkpoints_without_metrics=False))
    options = ocp.CheckpointManagerOptions(
        preservation_policy=keep.AnyPreservationPolicy(policies),
        best_fn=value if best else None,
        enable_async_checkpointing=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    return ocp.CheckpointManager(folder, options=options)
