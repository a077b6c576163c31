"""`python -m vit_jax.main --config=configs/NAME.py:ARGS --workdir=DIR --config.key=value`: one run, from the shell.

Exit codes: 0 finished, 2 something the user can put right (one message, no traceback), 75 stopped by SIGTERM or Ctrl-C
(while training, after finishing the step and saving): the same command resumes.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

from vit_jax import config as configs
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


def parse_command_line(
    argv: list[str], parser: argparse.ArgumentParser
) -> tuple[argparse.Namespace, list[tuple[str, str]]]:
    """Splits a command line into a parser's flags and the `--config.a.b=value` overrides.

    Raises:
      UserError: a flag that is neither, with the nearest right one.
    """
    required = [action for action in parser._actions if action.required]
    for action in required:
        action.required = False  # a misspelt flag is told before the one that it leaves missing
    flags, rest = parser.parse_known_args(argv)
    overrides = []
    for item in rest:
        key, equals, value = item.removeprefix("--").partition("=")
        if not item.startswith("--config.") or not equals:
            if item.startswith("--config.") and not equals:
                raise UserError(f"argument {item!r} has no value; write {item}=VALUE, in one word")
            known = [option for action in parser._actions for option in action.option_strings]
            raise UserError(
                f"argument {item!r} is unknown; overrides are --config.section.key=value; {configs.nearest(item, known)}"
            )
        overrides.append((key.removeprefix("config."), value))
    missing = [action.option_strings[0] for action in required if getattr(flags, action.dest) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} must be given; {parser.format_usage().strip()}")
    return flags, overrides


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


def main(argv: list[str] | None = None) -> int:
    """Runs; returns the exit code."""
    # While training, the loop has its own handlers; before and after, there is nothing to save.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _main(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        print("stopped at once; the same command goes on from the last checkpoint, if there is one", flush=True)
        return EXIT_INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, previous)


@reports_user_errors
def _main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m vit_jax.main", description=__doc__.split("\n\n")[0], allow_abbrev=False
    )
    parser.add_argument(
        "--config", required=True, help="config file and its arguments, configs/finetune.py:dataset=cifar10"
    )
    parser.add_argument(
        "--workdir", required=True, help="the run's folder; started again on the same one, a run resumes"
    )
    parser.add_argument("--coordinator", default="", help="host:port of process 0, or auto (SLURM, GKE, TPU VM)")
    parser.add_argument("--num_processes", type=int, default=1, help="processes of the run")
    parser.add_argument("--process_id", type=int, default=0, help="this process's number")
    flags, overrides = parse_command_line(argv, parser)
    config = configs.load(flags.config)
    from vit_jax import partition
    from vit_jax.run import run
    from vit_jax.train.loop import Interrupted

    if flags.coordinator:
        partition.initialize_processes(flags.coordinator, flags.num_processes, flags.process_id)
    prepare_process()
    try:
        result = run(config, flags.workdir, overrides=overrides)
    except Interrupted as stopped:
        print(stopped, flush=True)
        return EXIT_INTERRUPTED
    print(f"done: step {result.step}, {result.seconds:.0f} s; results, curves and checkpoints are in {result.workdir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
