"""Starts programs by forking a process that has imported what they import, which takes longer than many of the tests' runs.

A forked program has its own process, process group, streams and environment, as a started one has; it saves the imports alone.
JAX has opened no device in the process that is forked.
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FORKS = multiprocessing.get_context("forkserver")
IMPORTED = (
    "vit_jax.cli.main",
    "vit_jax.cli.train",
    "vit_jax.run.execute",
    "vit_jax.metrics.curves",
    "vit_jax.cards.facts",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
)


def preload(env: dict[str, str]) -> None:
    """Starts the process that is forked, in the environment of the programs: what reads a variable as it is imported needs it."""
    FORKS.set_forkserver_preload(list(IMPORTED))
    own = dict(os.environ)
    os.environ.update(env)
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(own)


class Forked:
    """`python -m MODULE WORDS`, with the part of `subprocess.Popen` that `Running` needs."""

    def __init__(self, module: str, words: Sequence[str], env: dict[str, str]):
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        self.stdout, self.stderr = os.fdopen(out), os.fdopen(err)
        arguments = (module, list(words), env, _Ends(out_end, err_end))
        self._process = FORKS.Process(target=_main, args=arguments)
        self._process.start()
        os.close(out_end)
        os.close(err_end)
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Ends:
    """The two pipes' ends that a program writes to, on their way to its process."""

    def __init__(self, out: int, err: int):
        self.numbers = out, err

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, ([DupFd(number) for number in self.numbers],)


def _main(module: str, words: list[str], env: dict[str, str], ends: tuple[Any, Any]) -> None:
    """Becomes the program."""
    import jax

    os.setsid()
    for number, end in zip((1, 2), ends, strict=True):
        received = end.detach()
        os.dup2(received, number)
        os.close(received)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(ROOT)
    jax.config.update("jax_compilation_cache_dir", env["JAX_COMPILATION_CACHE_DIR"])
    sys.argv = [module, *words]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:  # what Python does at its end and multiprocessing leaves out
        threading._shutdown()
        atexit._run_exitfuncs()
