"""The files of a sweep, and how to read them: the contract between the runs, the driver and the report.

SWEEP/sweep.json                  the sweep's description: tasks, candidates, seeds (`Sweep`)
SWEEP/runs/TASK/NAME/             the workdir of one run, as `vit_jax train` leaves it, and besides:
    result.json                   its result (`Result`); written last, so a run that has one is done
    predictions.npz               for the scored split: index, label, predicted, confidence, each (n,)
    mistakes/mistakes.json, *.png the wrong predictions with the highest confidence
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import statistics
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar

from vit_jax.files import read_json
from vit_jax.run.record import write_json
from vit_jax.types import UserError

SWEEP_FILE, RESULT_FILE, PREDICTIONS_FILE, MISTAKES_DIR = "sweep.json", "result.json", "predictions.npz", "mistakes"
Phase = Literal["dev", "final"]
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepTask:
    """One task of a sweep: a column of its table.

    Args:
      name: used in file names, `vtab-cifar100` or `cifar10`.
      title: its name in the paper's table.
      group: the mean that it counts in besides the overall mean; "" for none.
      dataset: name, as in the data section.
      missing: why its data cannot be read, "" if it can. Such a task is not run and counts in no mean.
    """

    name: str
    title: str
    group: str
    dataset: str
    missing: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep's description; `sweep.json`.

    Args:
      title: one line, which names the protocol.
      layout: the paper's tables that show its results: `vtab` (table 9 and VTAB's row of table 2), `transfer`
        (tables 2 and 5), `fewshot`, `objectives` (appendix B.1.2), or `list` for none.
      label: name of the row: the fine-tuned model.
      config: the config file and its arguments that made the sweep.
      metric: the metric that is compared: `top1`, or `5shot`.
      tasks: in the table's order.
      candidates: {config key: values to try}; chosen on the development split if there are several combinations.
      seeds: seeds of the final runs.
      weights: hash of the sizes and times of the checkpoint's files; "" if the runs start from none.
      tasks_in_mean: number of tasks in the layout's overall mean (19); 0 if it has no such mean.
      overrides: {`a.b`: text} of the command line, those that change a number.
    """

    title: str
    layout: Literal["vtab", "transfer", "fewshot", "objectives", "list"]
    label: str
    config: str
    metric: str
    tasks: tuple[SweepTask, ...]
    candidates: dict[str, tuple[Any, ...]]
    seeds: tuple[int, ...]
    weights: str = ""
    tasks_in_mean: int = 0
    overrides: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """The result of one run of a sweep; `result.json`.

    Args:
      task: name of the sweep's task.
      phase: `dev` runs are scored on the development split, `final` ones on the test split.
      candidate: {config key: value} of this run.
      seed: seed of parameters, data order and augmentation.
      identity: hash of the run's request (config file's keys and overrides); a result with another hash is refused.
      config_hash: hash of the resolved config, `config.json`.
      command: the command that does this run alone.
      dataset, splits: `{"train": ..., "scored": ...}`, in TFDS's syntax.
      resolution: (h, w) pixels.
      preprocessing: of the scored images: recipe, kernel, value range.
      num_examples: scored examples, without corrupt ones.
      num_train_examples: examples seen in training, repeats counted.
      num_params: parameters of the model.
      train_flops: FLOPs of the whole training.
      scores: {metric: value} of the last weights.
      average_scores: the same for the Polyak average; empty if there is none.
      seconds: wall-clock time of the last start.
      device: kind and number of the devices.
      surroundings: versions, git commit, command line, start.
      class_names: in label order.
    """

    task: str
    phase: Phase
    candidate: dict[str, Any]
    seed: int
    identity: str
    config_hash: str
    command: str
    dataset: str
    splits: dict[str, str]
    resolution: tuple[int, int]
    preprocessing: dict[str, Any]
    num_examples: int
    num_train_examples: int
    num_params: int
    train_flops: int
    scores: dict[str, float]
    average_scores: dict[str, float]
    seconds: float
    device: str
    surroundings: dict[str, Any]
    class_names: tuple[str, ...]

    def score(self, metric: str) -> float:
        """The metric of the averaged weights if there are any, else of the last ones."""
        return (self.average_scores or self.scores)[metric]


class Spread(NamedTuple):
    """Mean and sample standard deviation over `num` values; the deviation of one value is nan."""

    mean: float
    std: float
    num: int


def spread(values: Iterable[float]) -> Spread:
    """Mean, standard deviation (n - 1) and number of values."""
    scores = list(values)
    std = statistics.stdev(scores) if len(scores) > 1 else float("nan")
    return Spread(statistics.fmean(scores) if scores else float("nan"), std, len(scores))


def run_folder(sweep_folder: Path, task: str, name: str) -> Path:
    """The folder of a run's files."""
    return sweep_folder / "runs" / task / name


def hash_of(value: Any) -> str:
    """A short hash of JSON data, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def write_sweep(folder: Path, sweep: Sweep) -> None:
    """Writes `sweep.json`."""
    write_json(folder / SWEEP_FILE, dataclasses.asdict(sweep))


def read_sweep(folder: Path) -> Sweep:
    """Reads `sweep.json`.

    Raises:
      UserError: there is no sweep, or the file is damaged.
    """
    file = folder / SWEEP_FILE
    if not file.exists():
        raise UserError(f"{folder} is no sweep: it has no {SWEEP_FILE}; give a --workdir of `vit_jax sweep`")
    advice = "start the sweep again with the command that it was made by, after moving the file away"
    return read_as(Sweep, file, advice, renamed={"complete": "tasks_in_mean"})


def write_result(folder: Path, result: Result) -> None:
    """Writes a run's `result.json`."""
    write_json(folder / RESULT_FILE, dataclasses.asdict(result))


def read_result(folder: Path) -> Result | None:
    """A run's result; None if it is not done.

    Raises:
      UserError: the file is damaged.
    """
    file = folder / RESULT_FILE
    return read_as(Result, file, "remove it, and the run is done again") if file.exists() else None


def read_results(folder: Path) -> dict[Path, Result]:
    """Every result of a sweep, by the run's folder, sorted by folder name."""
    folders = sorted(file.parent for file in (folder / "runs").glob(f"*/*/{RESULT_FILE}"))
    return {place: result for place in folders if (result := read_result(place)) is not None}


def read_as(cls: type[_T], file: Path, advice: str, renamed: Mapping[str, str] = MappingProxyType({})) -> _T:
    """Reads a dataclass that `write_json(file, dataclasses.asdict(...))` wrote.

    Args:
      cls: the dataclass.
      file: an existing file.
      advice: what the user should do about a damaged file.
      renamed: {a field's name in files of older versions: its name now}.

    Raises:
      UserError: the file is damaged, or has other fields or types.
    """
    try:
        fields = read_json(file, advice=advice)
        return _build(cls, {renamed.get(name, name): value for name, value in fields.items()})
    except (TypeError, KeyError) as error:
        raise UserError(f"{file} is damaged or of another version ({error}); {advice}") from error


def _build(cls: type[_T], fields: dict[str, Any]) -> _T:
    hints = typing.get_type_hints(cls)
    for name in sorted(hints.keys() & fields.keys()):
        if not _fits(fields[name], hints[name]):
            raise TypeError(f"{name} is {str(fields[name])[:60]!r}")
    return cls(**{name: _typed(value, hints[name]) if name in hints else value for name, value in fields.items()})


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value suits a field's type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in (int, float):
        if type(value) is int:
            return abs(value) < 10**40  # a larger int may not fit a float
        return hint is float and type(value) is float
    if origin is Literal:
        return value in inner
    if origin is tuple:
        sized = inner[-1] is Ellipsis or (isinstance(value, list) and len(value) == len(inner))
        return isinstance(value, list) and sized and all(_fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, inner[1]) for item in value.values())
    return hint is Any or isinstance(value, dict if dataclasses.is_dataclass(hint) else hint)


def _typed(value: Any, hint: Any) -> Any:
    """Converts a JSON value to its field's type: lists to tuples, objects to dataclasses."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return tuple(_typed(item, inner[0]) for item in value)
    if origin is dict:
        return {key: _typed(item, inner[1]) for key, item in value.items()}
    return _build(hint, value) if dataclasses.is_dataclass(hint) else value  # type: ignore[arg-type]
