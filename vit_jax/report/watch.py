"""Rewrites a page while its sweeps run, whenever their files change, at most once in a given time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from vit_jax.report.page import write_report
from vit_jax.report.render import Progress
from vit_jax.sweeps.results import MISTAKES_DIR, PREDICTIONS_FILE, RESULT_FILE, SWEEP_FILE
from vit_jax.types import UserError

WATCHED = (
    SWEEP_FILE,
    f"runs/*/*/{RESULT_FILE}",
    f"runs/*/*/{PREDICTIONS_FILE}",
    f"runs/*/*/{MISTAKES_DIR}/mistakes.json",
    "metrics.jsonl",
    "run.json",
)
State = tuple[tuple[str, int, int], ...]


def watch(
    folders: Sequence[Path],
    to: Path,
    every_s: float,
    say: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Writes the page, and again whenever results change, until every run is done or Ctrl-C ends it.

    An unusable file is reported once and leaves the page as it was until the file is repaired. However the watch ends, the last
    page does not reload itself.

    Args:
      folders, to: see `write_report`.
      every_s: seconds between two looks, 1 or more.
      say: shows the user a message.
      sleep: waits; tests pass their own.

    Raises:
      UserError: the first page cannot be made.
    """
    seen = state_of(folders)
    progress = write_report(folders, to, refresh_s=max(1, round(every_s)))
    say(_said(progress))
    try:
        while not progress.finished:
            sleep(every_s)
            now = state_of(folders)
            if now == seen:
                continue
            seen = now  # recorded before the files are read: the next look sees changes in between
            try:
                progress = write_report(folders, to, refresh_s=max(1, round(every_s)))
                say(_said(progress))
            except UserError as error:
                say(f"the page stays as it was: {error}")
    except KeyboardInterrupt:
        say("stopped watching")
    if not progress.finished:
        try:
            write_report(folders, to)
        except UserError as error:
            say(f"the page stays as it was: {error}")


def state_of(folders: Sequence[Path]) -> State:
    """Name, size and time of every file that the page's numbers come from."""
    files = []
    for folder in folders:
        for pattern in WATCHED:
            for file in folder.glob(pattern):
                try:
                    about = file.stat()
                except OSError:
                    continue  # replaced or removed in the meantime: the next look sees it
                files.append((str(file), about.st_size, about.st_mtime_ns))
    return tuple(sorted(files))


def _said(progress: Progress) -> str:
    left = "".join(f"\nleft out: {text}" for text in progress.damaged)
    if progress.finished:
        return f"page written: all {progress.expected} runs are done{left}"
    return f"page written: {progress.done} of {progress.expected} runs done{left}"
