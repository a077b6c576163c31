"""Checkpoints: the only file that calls Orbax. A checkpoint is arrays plus one JSON that says what they are.

Items `params`, `opt_state`, `average` and `scalars` (step, rng) are saved apart, so that parameters can be read alone;
`meta` holds what a later reader needs: step, position in the data, resolved config, class names, preprocessing, grid.
A step that was being written when the process died is never taken for a checkpoint: Orbax writes to a temporary folder
and commits by renaming it.
"""

from __future__ import annotations

import contextlib
import logging
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from vit_jax.types import Duration, TrainState, UserError

FORMAT = 1
FOLDER = "checkpoints"


class Checkpointer:
    """Saves and restores a run's state.

    Args:
      directory: the run's workdir; checkpoints go to `checkpoints/STEP` in it.
      every: how often to save; the last step and an interrupted one are always saved.
      keep_last: newest checkpoints kept.
      keep_best: checkpoints with the best `best_metric` kept besides; 0 for none.
      best_metric: an evaluation result, higher is better, such as `eval/test/top1`; "" for none.
    """

    def __init__(
        self,
        directory: str | Path,
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
    def _manager(self) -> Any:
        if self._lazy_manager is None:
            self._lazy_manager = _open_manager(self._folder, *self._keep, best=bool(self.best_metric))
            best = self._lazy_manager.best_step() if self.best_metric else None
            if best is not None:
                self._best = self._lazy_manager.metrics(best).get(self.best_metric, -math.inf)
        return self._lazy_manager

    def due(self, step: int) -> bool:
        """Whether `step` is one to save at."""
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
            evaluator = self.best_metric.rpartition("/")[0]
            siblings = [name for name in scores if evaluator and name.startswith(f"{evaluator}/")]
            if siblings:
                known = ", ".join(siblings)
                raise UserError(f"checkpoint.best_metric={self.best_metric} is not evaluated; choose one of {known}")
            return False
        _ = self._manager  # knows what earlier parts of the run reached
        return scores[self.best_metric] > self._best

    def save(self, state: TrainState, meta: dict[str, Any], scores: dict[str, float] | None = None) -> None:
        """Starts saving; returns when the arrays have left the device, and writes them in the background.

        Args:
          state: the state to save.
          meta: JSON types; see the module's paragraph.
          scores: evaluation results of this step, for `keep_best`.

        Raises:
          UserError: this save or the one before it failed; says which checkpoint is the last good one.
        """
        import orbax.checkpoint as ocp

        items = {name: ocp.args.StandardSave(tree) for name, tree in _items(state).items()}
        metrics = {self.best_metric: scores[self.best_metric]} if scores and self.best_metric in scores else None
        manager = self._manager
        # Remembered here: Orbax reads what a checkpoint scored from disk, where one that is being written is not yet.
        self._best = max([self._best, *(metrics or {}).values()])
        try:
            manager.save(
                int(state.step),
                args=ocp.args.Composite(**items, meta=ocp.args.JsonSave({"format": FORMAT, **meta})),
                metrics=metrics,
            )
        except Exception as error:  # any failure to write must name the checkpoint that is left
            raise self.failure(f"a checkpoint in {self._folder}", error) from error

    def restore(self, abstract: TrainState, step: int) -> tuple[TrainState, dict[str, Any]]:
        """Reads a checkpoint into the shapes and shardings of `abstract`, whatever devices wrote it.

        Raises:
          UserError: the checkpoint does not hold such a state.
        """
        import orbax.checkpoint as ocp

        items = {name: ocp.args.StandardRestore(tree) for name, tree in _items(abstract).items()}
        try:
            read = self._manager.restore(step, args=ocp.args.Composite(**items, meta=ocp.args.JsonRestore()))
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise UserError(
                f"checkpoint {self._folder / str(step)} cannot be restored into this run's state: {error}\n"
                f"If the folder is damaged, remove it: the run then resumes from the checkpoint before it"
            ) from error
        state = TrainState(
            step=read.scalars["step"],
            params=read.params,
            opt_state=read.opt_state,
            average=read.average if abstract.average is not None else None,
            rng=read.scalars["rng"],
        )
        return state, read.meta

    def wait(self) -> None:
        """Waits until all that was saved is on disk.

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
        """Waits and lets go of the folder, without raising for what `wait` reports, or repeating what it reported."""
        if self._lazy_manager is None:
            return
        try:
            self._lazy_manager.close()
        except Exception as error:
            if not self._failed:
                logging.getLogger(__name__).error("%s", self.failure(f"a checkpoint in {self._folder}", error))
        self._lazy_manager = None

    def last_good(self) -> str:
        """Waits for what is being written and says which checkpoint there is to go on from."""
        if self._lazy_manager is not None:
            with contextlib.suppress(Exception):  # whatever it is: that checkpoint is not among the good ones
                self._lazy_manager.wait_until_finished()
        good = committed_steps(self._folder)
        return (
            f"the last good checkpoint is {self._folder / str(good[-1])}" if good else "no checkpoint was saved before"
        )

    def failure(self, what: str, error: Exception) -> UserError:
        """What to tell the user when something of the run could not be written."""
        self._failed = True
        again = "free disk space (or fix the cause) and start the same command again: it resumes from there"
        return UserError(f"{what} could not be written: {_first_line(error)}\n{self.last_good()}; {again}")


def committed_steps(folder: epath.Path | Path) -> list[int]:
    """Steps of the complete checkpoints in a `checkpoints` folder, in order, read from disk."""
    folder = epath.Path(folder)
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.exists() else []


def run_folder(path: str) -> epath.Path | None:
    """The checkpoint folder that a path names: a workdir (its newest step) or a step in it; None for anything else."""
    place = epath.Path(path).expanduser().absolute()  # Orbax reads no relative paths
    if (place / "meta").exists() and (place / "params").exists():
        return place
    steps = committed_steps(place / FOLDER)
    return place / FOLDER / str(steps[-1]) if steps else None


def read_params(folder: epath.Path, *, average: bool) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads only the parameters of one of our checkpoints, on any machine.

    Args:
      folder: from `run_folder`.
      average: the Polyak average instead of the raw weights.

    Returns:
      ({"a/b/kernel": array}, meta).

    Raises:
      UserError: it has no average.
    """
    import orbax.checkpoint as ocp

    item = folder / ("average" if average else "params")
    if not item.exists():
        raise UserError(f"{folder} holds no averaged weights (train.average_decay was 0); use init.weights=raw")
    _quiet()
    with ocp.PyTreeCheckpointer() as checkpointer:
        shapes = checkpointer.metadata(item).item_metadata.tree
        on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
        tree = checkpointer.restore(item, restore_args=on_host)
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
        meta = checkpointer.restore(folder / "meta")
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(k.key for k in path): value for path, value in leaves}, meta


def write_params(workdir: epath.Path, params: Any, meta: dict[str, Any]) -> epath.Path:
    """Writes parameters alone as a checkpoint that `init` and `read_params` read; returns its folder.

    Args:
      workdir: new; the checkpoint is its step 0.
      params: tree of arrays.
      meta: JSON types; `grid` and `config.model` at least.
    """
    import orbax.checkpoint as ocp

    _quiet()
    folder = workdir.absolute() / FOLDER / "0"
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        items = {"params": ocp.args.StandardSave(params), "meta": ocp.args.JsonSave({"format": FORMAT, **meta})}
        checkpointer.save(folder, ocp.args.Composite(**items))
    return folder


def _first_line(error: Exception) -> str:
    return next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)


def _items(state: TrainState) -> dict[str, Any]:
    items = {
        "params": state.params,
        "opt_state": state.opt_state,
        "scalars": {"step": state.step, "rng": state.rng},
    }
    return items | ({"average": state.average} if state.average is not None else {})


def _quiet() -> None:
    """Orbax logs a dozen lines a save, and with a traceback what it raises as well."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _open_manager(folder: epath.Path, keep_last: int, keep_best: int, *, best: bool) -> Any:
    import orbax.checkpoint as ocp
    from orbax.checkpoint.checkpoint_managers import preservation_policy as keep

    _quiet()
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
