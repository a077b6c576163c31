"""A run whose workdir is a URL: it works in a local folder, the stage, and a mirror copies every save to the URL.

Checkpoints go through TensorStore and records are appended to. Neither works at every store, so all rooms see the stage alone.
The URL is the truth: a start fetches the records and the newest checkpoint from there, and drops the stage of a killed process.
A save is copied in the background while training continues; the next save waits for the copy. Records are copied first, and a
checkpoint counts once all its files are there, so a kill at any moment leaves the previous checkpoint and all records up to it.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import hashlib
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from vit_jax.locks import hold
from vit_jax.remote import PARTIAL, Remote, explained, named, reason
from vit_jax.run.lease import Lease, hold_lease
from vit_jax.train.checkpoint import Checkpointer
from vit_jax.train.folders import FOLDER, STEP, UPLOADING, committed_steps, steps_among
from vit_jax.types import TrainState, UserError

# What resuming reads besides checkpoints.
RECORDS = ("config.json", "settled.json", "metrics.jsonl", "time.json", "extensions.json", "run.json")
# Items of a checkpoint that hold arrays: fetched only of the step that the run resumes from.
ARRAYS = ("params", "opt_state", "average", "scalars")
# Pauses before a failed copy is tried again, seconds.
PAUSES_S = (1.0, 5.0, 20.0, 60.0)


class Mirror:
    """Copies a stage to its URL.

    Args:
      remote: the URL.
      folder: the stage.
      lease: held by this process; None if nothing will be written.
    """

    def __init__(self, remote: Remote, folder: Path, lease: Lease | None = None):
        self.remote, self.folder = remote, folder
        self.failed: UserError | None = None
        self.kept = folder.parent / f"kept-{datetime.datetime.now():%Y%m%d-%H%M%S}"
        self._lease = lease
        self._sent: dict[str, tuple[int, int]] = {}  # {name: size and time} of files that are there as they are here
        self.steps: set[int] = set()  # complete there
        with explained(remote.url, "read"):
            self._files = remote.list()
            self.steps |= set(steps_among(self._files))
            light = {name: size for name, size in self._files.items() if name in RECORDS or self._is_light(name)}
            remote.fetch(light, folder)
        for step in self.steps:  # a checkpoint without light files is still one
            (folder / FOLDER / str(step)).mkdir(parents=True, exist_ok=True)
        self._sent = {name: _stamp(folder / name) for name in light}

    def _is_light(self, name: str) -> bool:
        first, _, rest = name.removeprefix(f"{FOLDER}/").partition("/")
        ours = name.startswith(f"{FOLDER}/") and first in map(str, self.steps)
        return ours and bool(rest) and rest.split("/")[0] not in ARRAYS

    def fetch_arrays(self, step: int) -> None:
        """Fetches the arrays of a checkpoint.

        Raises:
          UserError: they cannot be fetched.
        """
        below = {name: size for name, size in self._files.items() if name.startswith(f"{FOLDER}/{step}/")}
        with explained(self.remote.url, "read"):
            self.remote.fetch({n: size for n, size in below.items() if not (self.folder / n).exists()}, self.folder)

    def clean(self) -> None:
        """Removes what a killed process left at the URL: checkpoints that it was writing or removing, and files half written."""
        begun = {name.split("/")[1].removesuffix(UPLOADING) for name in self._files if name.startswith(f"{FOLDER}/")}
        with explained(self.remote.url, "written"):
            for step in sorted(filter(STEP.fullmatch, begun - {str(step) for step in self.steps})):
                self._remove(step)
            for name in (name for name in self._files if name.endswith(PARTIAL)):
                self.remote.remove(name)

    def send(self) -> None:
        """Copies everything that is new, records first, and removes the checkpoints that the run no longer keeps.

        Raises:
          UserError: that failed, also when tried again; or another process uses the URL.
        """
        if self.failed:
            raise self.failed
        self.remote.forget()  # idle since the last copy
        for pause in (*PAUSES_S, None):
            try:
                return self._send()
            except UserError as error:  # another process uses the URL
                self.failed = UserError(f"{error}; steps that are not there are kept in {self.kept}")
                raise self.failed from error
            except Exception as error:  # drivers raise many types
                if pause is None:
                    self.failed = self._failure(error)
                    raise self.failed from error
            time.sleep(pause)
            self.remote.forget()

    def _send(self) -> None:
        if self._lease:
            self._lease.check()
        here = set(committed_steps(self.folder / FOLDER))
        # A record may change while it is copied: its stamp is taken before.
        stamps = {name: _stamp(self.folder / name) for name in self._records()}
        for name in sorted((n for n in stamps if stamps[n] != self._sent.get(n)), key=lambda n: (n == "run.json", n)):
            self.remote.replace(name, (self.folder / name).read_bytes())
            self._sent[name] = stamps[name]
        for step in sorted(here - self.steps):
            self._put(step)
            self.steps.add(step)
        for step in sorted(self.steps - here):
            self.steps.discard(step)
            self._remove(str(step))

    def _records(self) -> list[str]:
        """Names of the files in the stage, checkpoints aside."""
        files = [p for p in self.folder.rglob("*") if p.is_file() and p.suffix not in (PARTIAL, ".tmp")]
        return [p.relative_to(self.folder).as_posix() for p in files if self.folder / FOLDER not in p.parents]

    def _put(self, step: int) -> None:
        root = self.folder / FOLDER / str(step)
        names = [p.relative_to(self.folder).as_posix() for p in sorted(root.rglob("*")) if p.is_file()]
        self.remote.replace(f"{FOLDER}/{step}{UPLOADING}", b"not complete\n")
        self.remote.put(self.folder, names)
        there = self.remote.list(f"{FOLDER}/{step}")
        if short := [name for name in names if there.get(name) != (self.folder / name).stat().st_size]:
            raise OSError(f"{short[0]} did not arrive whole")
        self.remote.remove(f"{FOLDER}/{step}{UPLOADING}")

    def _remove(self, step: str) -> None:
        self.remote.replace(f"{FOLDER}/{step}{UPLOADING}", b"not complete\n")
        self.remote.remove(f"{FOLDER}/{step}", recursive=True)
        self.remote.remove(f"{FOLDER}/{step}{UPLOADING}")

    def last(self) -> str:
        """The newest checkpoint at the URL, for messages."""
        newest = f"the last good checkpoint is {self.remote.url}/{FOLDER}/{max(self.steps)}" if self.steps else ""
        return newest or f"no checkpoint is at {self.remote.url} yet"

    def _failure(self, error: Exception) -> UserError:
        here = committed_steps(self.folder / FOLDER)
        newer = here and here[-1] not in self.steps
        kept = f"; step {here[-1]} is kept on this machine, in {self.kept}, which is a workdir too" if newer else ""
        return UserError(
            f"{self.remote.url} could not be written: {reason(error)}\n{self.last()}; fix the cause and start the same command "
            f"again: it resumes from there{kept}"
        )

    def keep(self) -> None:
        """Keeps the stage where a copy failed; only what is not at the URL is worth it."""
        if self.failed and set(committed_steps(self.folder / FOLDER)) - self.steps:
            self.folder.rename(self.kept)

    def checkpointer(self) -> type[Checkpointer]:
        """The class of this run's checkpointer."""
        return type("Mirrored", (MirroredCheckpointer,), {"mirror": self})


class MirroredCheckpointer(Checkpointer):
    """Saves to the stage, and copies each save to the URL in the background."""

    mirror: Mirror
    _pool: concurrent.futures.ThreadPoolExecutor | None = None
    _copy: concurrent.futures.Future[None] | None = None

    def save(self, state: TrainState, meta: dict[str, Any], scores: dict[str, float] | None = None) -> None:
        """As `Checkpointer.save`; waits until the save before this one is at the URL."""
        self._join()
        super().save(state, meta, scores)
        self._pool = self._pool or concurrent.futures.ThreadPoolExecutor(1)
        self._copy = self._pool.submit(self._commit)

    @property
    def workdir(self) -> str:
        """The URL."""
        return self.mirror.remote.url

    def _commit(self) -> None:
        super().wait()
        self.mirror.send()

    def _join(self) -> None:
        copy, self._copy = self._copy, None
        if copy is not None:
            copy.result()

    def restore(self, abstract: TrainState, step: int) -> tuple[TrainState, dict[str, Any]]:
        """As `Checkpointer.restore`; fetches the checkpoint's arrays first."""
        self.mirror.fetch_arrays(step)
        return super().restore(abstract, step)

    def wait(self) -> None:
        """Waits until everything saved is at the URL."""
        self._join()
        super().wait()

    def close(self) -> None:
        """Waits and releases the stage; an error of the copy is raised by the mirror's next `send`."""
        with contextlib.suppress(Exception):
            self._join()
        if self._pool:
            self._pool.shutdown()
        super().close()

    def failure(self, what: str, error: Exception) -> UserError:
        """As `Checkpointer.failure`; names the stage, whose disk may be full."""
        return super().failure(f"{what} (written below {self.mirror.folder.parent} first)", error)

    def last_good(self) -> str:
        """Says from which checkpoint the run can resume."""
        if threading.current_thread() is threading.main_thread():  # the copying thread would wait for itself
            with contextlib.suppress(Exception):
                self._join()
        return self.mirror.last()


@contextlib.contextmanager
def mirrored(url: str, *, wait: bool = False) -> Iterator[Mirror]:
    """Opens a workdir at a URL for a run, alone; at the end everything is there and the stage is removed.

    Args:
      url: the workdir; new, or of the run to resume.
      wait: wait for another process to end instead of refusing.

    Raises:
      UserError: the URL cannot be read or written, another process uses it, or this run has several processes.
    """
    if jax.process_count() > 1:  # each process would stage its own shards alone
        raise UserError(
            f"workdir {url}: a run of several processes needs a folder that all of them share; mount the bucket (gcsfuse, "
            "mount-s3) or another file system on every machine, and give the folder"
        )
    remote = Remote(url)
    place = _stages() / hashlib.sha256(remote.url.encode()).hexdigest()[:16]
    folder = place / remote.name
    with contextlib.ExitStack() as stack:
        with named(place, remote.url):
            stack.enter_context(hold(place, wait=wait))
        stack.enter_context(named(folder, remote.url))
        stack.enter_context(_fresh(folder))
        mirror = Mirror(remote, folder, stack.enter_context(hold_lease(remote, place, wait=wait)))
        stack.callback(mirror.keep)
        mirror.clean()
        try:
            yield mirror
        except BaseException as error:
            if mirror.failed is None:
                try:
                    mirror.send()
                except UserError as failure:
                    if isinstance(error, UserError):
                        raise UserError(f"{error}\n{failure}") from error
                    logging.getLogger(__name__).error("%s", failure)
            raise
        mirror.send()


@contextlib.contextmanager
def looked_at(url: str) -> Iterator[Path]:
    """A local folder with the records of a workdir at a URL, for one look; nothing is written to the URL."""
    remote = Remote(url)
    with tempfile.TemporaryDirectory(prefix="vit_jax-") as held:
        folder = Path(held) / remote.name
        with named(folder, remote.url):
            yield Mirror(remote, folder).folder


@contextlib.contextmanager
def _fresh(folder: Path) -> Iterator[None]:
    """Makes a stage anew, and removes it at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _stages() -> Path:
    """The folder of all stages: `vit_jax/workdirs` in the user's cache folder, for the disk of which XDG_CACHE_HOME is set."""
    home = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(tempfile.gettempdir() if home.startswith("~") else home) / "vit_jax" / "workdirs"


def _stamp(file: Path) -> tuple[int, int]:
    return (found := file.stat()).st_size, found.st_mtime_ns
