"""A run's numbers: exact averages, and the writers of metrics.jsonl and TensorBoard files.

rich and tensorboardX are imported by the writer that needs them.
"""

from __future__ import annotations

import contextlib
import json
import math
import numbers
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vit_jax.console import ConsoleWriter
from vit_jax.files import UnreadableFile, read_regular
from vit_jax.types import UserError

NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}  # JSON has no such numbers: written as strings
NON_FINITE_NAMES = tuple(NON_FINITE)


class Mean(NamedTuple):
    """A weighted average, kept as its two sums so that padded, sharded and accumulated averages stay exact.

    `a + b` merges two averages (a plain tuple would be concatenated); `sum(means, Mean(0.0, 0.0))` merges many.

    Args:
      total: sum of weight * value; a float, a numpy scalar or a jax array, traced or not.
      weight: sum of the weights, which is the number of examples that count.
    """

    total: Any
    weight: Any

    def __add__(self, other: Mean) -> Mean:  # type: ignore[override]  # a tuple's + would concatenate, silently
        return Mean(self.total + other.total, self.weight + other.weight)

    @property
    def value(self) -> float:
        """The average on the host (a sync point). NaN where the weight is 0: no example is not a score of 0."""
        return float(self.total) / float(self.weight) if self.weight else math.nan


class Writer:
    """The methods of a writer; each writer overrides those that it needs."""

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Records the scalars of one step, in the order given; keys are paths such as `train/loss`."""

    def notice(self, text: str) -> None:
        """Shows the user a text."""

    def flush(self) -> None:
        """Forces written records to disk; worth its milliseconds before a checkpoint is saved."""

    def close(self) -> None:
        """Flushes and closes; a second call does nothing."""


class JsonlWriter(Writer):
    """The authoritative record: one JSON object per line, `{"step": 100, "train/loss": 0.31}`.

    Opening it drops the records that a resumed run will write again, so the file becomes byte for byte that of an uninterrupted
    run (apart from the values under `time/`). Floats keep every digit; NaN and infinities become the strings of `NON_FINITE`.

    Args:
      path: the file, on a local or mounted file system; created, with its folder, if missing.
      resume_step: the last step to keep, which is that of the checkpoint the run resumes from; -1 keeps nothing.

    Raises:
      UserError: the path is a URL, or a line before the last one is not a record.
    """

    def __init__(self, path: str | os.PathLike[str], resume_step: int):
        if "://" in os.fspath(path):
            raise UserError(f"expected a folder on a local or mounted disk for metrics, found {path}; mount the bucket")
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        before = _read(path) if path.exists() else b""
        kept = b"".join(line + b"\n" for step, line, _ in _parse_jsonl(before, path) if step <= resume_step)
        if kept != before:  # replaced atomically: a kill in between leaves the old file
            scratch = path.with_name(path.name + ".tmp")
            with scratch.open("wb") as f:
                f.write(kept)
                f.flush()
                os.fsync(f.fileno())
            os.replace(scratch, path)
        self._file = path.open("ab", buffering=0)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        assert "step" not in scalars, "step is the record's own key"
        values = {k: v if math.isfinite(v) else str(float(v)) for k, v in scalars.items()}
        line = (json.dumps({"step": step, **values}, allow_nan=False) + "\n").encode()
        end = os.fstat(self._file.fileno()).st_size
        try:
            while line:  # one system call, unless the disk fills up during it
                line = line[self._file.write(line) :]
        except OSError:
            os.ftruncate(self._file.fileno(), end)
            raise

    def flush(self) -> None:
        if not self._file.closed:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self.flush()
        self._file.close()


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Returns the records of a metrics.jsonl in written order, without a last line torn by a kill.

    Raises:
      UserError: a line before the last one is not a record; or there is no readable file.
    """
    records = [record for _, _, record in _parse_jsonl(_read(path), Path(path))]
    return [{k: NON_FINITE.get(v, v) if isinstance(v, str) else v for k, v in r.items()} for r in records]


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return read_regular(path)
    except UnreadableFile as error:
        raise UserError(f"{error}; it should hold the metrics of a run: move it away") from error


def _parse_jsonl(data: bytes, path: Path) -> list[tuple[int, bytes, dict[str, Any]]]:
    """Splits a file into (step, line, record); the last line may be torn or lack its newline."""
    found = []
    lines = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        record = _record(line)
        if record is not None:
            found.append((record["step"], line, record))
        elif number < len(lines):  # the last piece may be empty, or torn by a kill
            what = f"expected a record with a step in line {number} of {path}, found {line[:60]!r}"
            raise UserError(f"{what}; remove the line, or move the file away")
    return found


def _record(line: bytes) -> dict[str, Any] | None:
    """The record (a step, and numbers) that a line holds; None if it holds none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or type(record.get("step")) is not int:
        return None
    numbers = all(
        type(v) is float or (type(v) is int and abs(v) < 2**63) or v in NON_FINITE_NAMES for v in record.values()
    )
    return record if numbers else None


@contextlib.contextmanager
def _torch_out_of_sight() -> Iterator[None]:
    """Hides torch from tensorboardX, which would import it for features unused here: 1.5 to 2 s of every start."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # makes an import raise ImportError
    try:
        yield
    finally:
        del sys.modules["torch"]


class TensorBoardWriter(Writer):
    """TensorBoard event files without TensorFlow. After a kill the last seconds may be missing; metrics.jsonl has them.

    This writes in the caller's thread. tensorboardX's own SummaryWriter uses another thread; if a full disk kills that thread,
    the run waits for it for ever.

    Args:
      directory: folder of the event files; each start of the run adds one.
      resume_step: TensorBoard hides everything after this step in earlier files; -1 hides everything.
    """

    FLUSH_EVERY_S = 5.0

    def __init__(self, directory: str | os.PathLike[str], resume_step: int):
        with _torch_out_of_sight():
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import SessionLog

        os.makedirs(directory, exist_ok=True)
        # File names hold the time in whole seconds: without the suffix, a restart within a second would overwrite the file.
        suffix = f".{os.getpid()}.{max(resume_step, 0)}"
        self._file: Any = EventsWriter(os.path.join(directory, "events"), suffix)
        self._flushed = -math.inf
        self._write(step=resume_step + 1, session_log=SessionLog(status=SessionLog.START))

    def _write(self, **fields: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._file.write_event(Event(wall_time=time.time(), **fields))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=key, simple_value=value) for key, value in scalars.items()]
        self._write(step=step, summary=Summary(value=values))
        if time.monotonic() - self._flushed > self.FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        if self._file:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        if self._file:
            file, self._file = self._file, None
            file.close()


class MetricWriters(Writer, contextlib.AbstractContextManager["MetricWriters"]):
    """Passes everything to each of its writers, converting numpy and jax scalars; leaving a `with` closes them.

    Args:
      writers: called in this order; empty on every process but the primary.
    """

    def __init__(self, writers: Sequence[Writer | ConsoleWriter]):
        self._writers = list(writers)

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        if self._writers:  # sync point: fetches scalars that are still on the device
            scalars = {k: int(v) if isinstance(v, numbers.Integral) else float(v) for k, v in scalars.items()}
        for writer in self._writers:
            writer.write(int(step), scalars)

    def notice(self, text: str) -> None:
        for writer in self._writers:
            writer.notice(text)

    def flush(self) -> None:
        for writer in self._writers:
            writer.flush()

    def close(self) -> None:
        with contextlib.ExitStack() as stack:  # closes every writer, even if closing another one fails
            for writer in self._writers:
                stack.callback(writer.close)

    def __exit__(self, *error: object) -> None:
        self.close()


def make_writers(
    workdir: str | os.PathLike[str], *, total_steps: int, start_step: int, primary: bool = True, quiet: bool = False
) -> MetricWriters:
    """Opens the writers of a run: `workdir/metrics.jsonl`, `workdir/tensorboard/` and the console.

    Args:
      workdir: the run's folder.
      total_steps: steps of the whole run.
      start_step: the step of the checkpoint that the run resumes from; 0 starts anew and drops every older record.
      primary: whether this is process 0; the others write nothing.
      quiet: write nothing to the console.
    """
    if not primary:
        return MetricWriters([])
    resume_step = start_step or -1
    records = JsonlWriter(os.path.join(workdir, "metrics.jsonl"), resume_step)
    events = TensorBoardWriter(os.path.join(workdir, "tensorboard"), resume_step)
    return MetricWriters([records, events] if quiet else [records, events, ConsoleWriter(total_steps, start_step)])
