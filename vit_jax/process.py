"""What every program does once as a process, whatever it computes: exit codes, users' mistakes, compiled programs, memory."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

from vit_jax.types import UserError

EXIT_USER_ERROR = 2
# BSD's EX_TEMPFAIL: "try again later". A scheduler may restart the same command; it resumes.
EXIT_INTERRUPTED = 75

_Args = ParamSpec("_Args")


def reports_user_errors(program: Callable[_Args, int]) -> Callable[_Args, int]:
    """Makes a UserError of a program one line on standard error and exit code 2, not a traceback."""

    @functools.wraps(program)
    def reporting(*args: _Args.args, **kwargs: _Args.kwargs) -> int:
        try:
            return program(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            return EXIT_USER_ERROR

    return reporting


def enable_compilation_cache() -> None:
    """Keeps compiled programs under the user's cache folder, so that the next start of the same run compiles nothing.

    JAX_COMPILATION_CACHE_DIR names another folder; VIT_JAX_COMPILATION_CACHE=0 switches it off.
    """
    import jax

    if os.environ.get("VIT_JAX_COMPILATION_CACHE") == "0":
        return
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        jax.config.update("jax_compilation_cache_dir", str(home / "vit_jax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def keep_freed_memory() -> None:
    """On a CPU, lets the C library keep the memory of one step for the next instead of returning it to the kernel.

    XLA allocates a step's buffers anew each time; glibc maps them from the kernel, which zeroes every page again. Keeping
    them made steps of the quickstart's model 2.4 times as fast and those of S/16 1.1 times. Linux with glibc only.
    """
    import ctypes

    import jax

    if jax.default_backend() != "cpu" or not sys.platform.startswith("linux"):
        return
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)


def prepare_process() -> None:
    """What every program of ours does once, before it computes."""
    enable_compilation_cache()
    keep_freed_memory()
