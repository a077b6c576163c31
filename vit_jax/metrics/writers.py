"""The writers of a run's numbers: metrics.jsonl, TensorBoard files, and the console.

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
from typing import Any

from vit_jax.console import ConsoleWriter
from vit_jax.metrics.jsonl import parse_jsonl, read_bytes
from vit_jax.types import UserError


class Writer:
    """The methods of a writer; each writer overrides those that it needs."""

    failed = False  # set before `close` where an error ends the run

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Records the scalars of one step, in the order given; keys are paths such as `train/loss`."""

    def picture(self, step: int, name: str, file: Path) -> None:
        """Takes a picture that the run has written, a PNG."""

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
        before = read_bytes(path) if path.exists() else b""
        kept = b"".join(line + b"\n" for step, line, _ in parse_jsonl(before, path) if step <= resume_step)
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

    def picture(self, step: int, name: str, file: Path) -> None:
        for writer in self._writers:
            if isinstance(writer, Writer):
                writer.picture(step, name, file)

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
        for writer in self._writers:
            if isinstance(writer, Writer):
                writer.failed = error[0] is not None
        self.close()


def make_writers(
    workdir: str | os.PathLike[str],
    *,
    total_steps: int,
    start_step: int,
    primary: bool = True,
    quiet: bool = False,
    trackers: Sequence[Writer] = (),
) -> MetricWriters:
    """Opens the writers of a run: `workdir/metrics.jsonl`, `workdir/tensorboard/` and the console.

    Args:
      workdir: the run's folder.
      total_steps: steps of the whole run.
      start_step: the step of the checkpoint that the run resumes from; 0 starts over and drops every older record.
      primary: whether this is process 0; the others write nothing.
      quiet: write nothing to the console.
      trackers: further writers, from `trackers.open_trackers`.
    """
    if not primary:
        return MetricWriters([])
    resume_step = start_step or -1
    records = JsonlWriter(os.path.join(workdir, "metrics.jsonl"), resume_step)
    events = TensorBoardWriter(os.path.join(workdir, "tensorboard"), resume_step)
    console = [] if quiet else [ConsoleWriter(total_steps, start_step)]
    return MetricWriters([records, events, *trackers, *console])
