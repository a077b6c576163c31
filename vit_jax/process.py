"""The setup that every program needs once per process: exit codes, users' mistakes, signals, standard streams, compiled
programs, memory."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, ParamSpec

from vit_jax.memory import keep_freed_memory
from vit_jax.types import UserError

EXIT_USER_ERROR = 2
# BSD's EX_TEMPFAIL: "try again later". A scheduler may restart the same command; it resumes.
EXIT_INTERRUPTED = 75
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)
STOPPED = "stopped at once; the same command resumes from the last checkpoint, if there is one"
PATIENCE_S = 1.0  # time for the main thread to notice a signal
PIPE_PATIENCE_S = 0.5  # time for a pipe's reader to accept the last message

_Args = ParamSpec("_Args")
_Act = Callable[[int], object]
_acts: dict[int, _Act] = {}  # the current action of each signal number
_heard: dict[int, float] = {}  # when the main thread last noticed each signal
_acknowledgement: list[str] = []  # the line that acknowledges the next signal at once, if there is one
_before_end: list[Callable[[int, str], object]] = []
_ending = threading.Lock()
_last: list[Any] = []  # code and text of the end, set by the thread that holds `_ending`


def begin(stopped: str = STOPPED) -> None:
    """Prepares a program that runs for hours: from here on, failing to print costs it nothing, and signals end it.

    SIGTERM and Ctrl-C end the process at once, with code EXIT_INTERRUPTED, whatever it is doing: importing, compiling in
    another thread, waiting for a lock. Code that has something to save takes the signals over with `Heed`. Signals that the
    caller ignores stay ignored, as a shell ignores Ctrl-C for background jobs.

    Args:
      stopped: the message when a signal ends the process.
    """
    keep_streams()

    def end_now(number: int) -> None:
        end(EXIT_INTERRUPTED, stopped)

    # Python calls handlers in its main thread, between two bytecode instructions. A main thread that compiles for minutes does
    # not get there, so a thread reads the signal numbers that C writes into a pipe as they arrive.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        while received := os.read(reader, 1):
            began, number = time.monotonic(), received[0]
            if _acknowledgement and number in (signal.SIGTERM, signal.SIGINT):
                _write_line(1, _acknowledgement.pop())
            time.sleep(PATIENCE_S)
            if _acts.get(number) is end_now and _heard.get(number, -1e9) < began - PATIENCE_S:
                end_now(number)

    threading.Thread(target=watch, daemon=True).start()
    heed = Heed(end_now)
    heed.take()

    def forget() -> None:  # runs in a forked child: signals and end of the child are not this process's
        signal.set_wakeup_fd(-1)
        _before_end.clear()
        heed.give_back()

    os.register_at_fork(after_in_child=forget)


def _hear(number: int, _: object) -> None:
    _heard[number] = time.monotonic()
    _acts[number](number)


class Heed:
    """Takes signals over from their current handler; as a context manager, for its block. Main thread only.

    Args:
      act: called with the number of a signal, in the main thread.
      numbers: the signals; those that the caller of the program ignores stay ignored.
    """

    def __init__(self, act: _Act, numbers: Iterable[int] = (signal.SIGTERM, signal.SIGINT)):
        self._act, self._numbers = act, tuple(numbers)
        self._before: dict[int, tuple[Any, _Act | None]] = {}

    def take(self) -> None:
        """Makes signals call `act` from now on."""
        for number in self._numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before = _acts.get(number)
                _acts[number] = self._act
                self._before[number] = signal.signal(number, _hear), before

    def give_back(self, numbers: Iterable[int] | None = None) -> None:
        """Restores the earlier action of these signals (default: all)."""
        for number in [n for n in numbers or self._numbers if n in self._before]:
            handler, act = self._before.pop(number)
            if act is not None:
                _acts[number] = act
            signal.signal(number, handler)

    def __enter__(self) -> Heed:
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()


def end(code: int, text: str = "") -> NoReturn:
    """Ends this process now. Hanging or compiling threads do not delay it, and no code can swallow it as an exception.

    Args:
      code: exit code.
      text: the last line: on standard output if the run can resume, else on standard error.
    """
    if _ending.acquire(blocking=False):
        _last[:] = code, text
        for number in _acts:
            _acts[number] = lambda _: None  # signals no longer change anything
        for act in reversed(_before_end):
            with contextlib.suppress(Exception):  # the process ends in any case
                act(code, text)
    else:  # another thread is ending the process, unless it waits for a lock that this thread holds
        time.sleep(2 * PATIENCE_S)
        code, text = _last
    if threading.current_thread() is threading.main_thread():  # another thread may wait for a lock of the main thread
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
    if text:
        _write_line(1 if code in (0, EXIT_INTERRUPTED) else 2, text)
    os._exit(code)


def _write_line(number: int, text: str) -> None:
    """Writes to a file descriptor past Python's streams, whose locks another thread may hold; gives up on a stuck reader."""
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [number], [], PIPE_PATIENCE_S)[1]:
            start = "\n" * os.isatty(number)  # below a live line
            os.write(number, f"{start}{text}\n".encode(errors="backslashreplace"))


@contextlib.contextmanager
def acknowledged(text: str) -> Iterator[None]:
    """Makes the first SIGTERM or Ctrl-C after `begin` print a line at once: the main thread may take minutes to notice it."""
    _acknowledgement[:] = [text]
    try:
        yield
    finally:
        _acknowledgement.clear()


def finish(program: Callable[[], int]) -> NoReturn:
    """Runs a program and ends with its exit code. A failed program does not wait for its threads: Orbax's may never end."""
    try:
        code = program()
    except Exception:
        traceback.print_exc()
        end(1)
    if code:
        end(code)
    sys.exit(0)


@contextlib.contextmanager
def before_end(act: Callable[[int, str], object]) -> Iterator[None]:
    """Makes `end`, which runs no `finally`, call `act(code, text)` first. Any thread may call it, so `act` must not wait."""
    _before_end.append(act)
    try:
        yield
    finally:
        _before_end.remove(act)


class _Stream(io.TextIOWrapper):
    """A standard stream that never fails: it drops text if its reader is gone or its disk is full."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._drop()

    def _drop(self) -> None:
        """Sends all later output nowhere: the buffer, which Python writes at exit, and the output of C code."""
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), self.fileno())


def keep_streams() -> None:
    """Makes standard output and error accept every line: the run is worth more than its lines.

    Closed streams are opened on the null device. Otherwise the next file that is opened, such as a checkpoint's, would get
    their number and all printed text. Characters that the terminal's encoding lacks are written with backslashes.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number is this one
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream: Any = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue  # a notebook's or a test's stream
        if stream is not None:
            stream.flush()
        unbuffered = getattr(stream, "write_through", False)  # PYTHONUNBUFFERED
        text = _Stream(
            open(number, "wb", 0 if unbuffered else -1, closefd=False),  # noqa: SIM115  (for the rest of the process)
            encoding=getattr(stream, "encoding", "utf-8"),
            errors="backslashreplace",
            line_buffering=getattr(stream, "line_buffering", False),
            write_through=unbuffered,
        )
        setattr(sys, name, text)


def reports_user_errors(program: Callable[_Args, int]) -> Callable[_Args, int]:
    """Turns a program's UserError, or a full disk, into one message on standard error and exit code 2, without a traceback."""

    @functools.wraps(program)
    def reporting(*args: _Args.args, **kwargs: _Args.kwargs) -> int:
        try:
            return program(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            return EXIT_USER_ERROR
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            where = error.filename or "a file"
            print(f"error: {where} could not be written: {error.strerror}; make room and try again", file=sys.stderr)
            return EXIT_USER_ERROR

    return reporting


def enable_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that the next start of the same run compiles nothing.

    JAX_COMPILATION_CACHE_DIR names another folder; VIT_JAX_COMPILATION_CACHE=0 switches it off.
    """
    import jax

    if os.environ.get("VIT_JAX_COMPILATION_CACHE") == "0":
        return
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        home = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
        if home.startswith("~"):  # a container's user who has no name
            text = "there is no home folder: compiled programs are not kept; set JAX_COMPILATION_CACHE_DIR\n"
            sys.stderr.write(text)
            return
        jax.config.update("jax_compilation_cache_dir", os.path.join(home, "vit_jax", "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def set_up_process() -> None:
    """The setup that every program of vit_jax runs once, before it computes."""
    enable_compilation_cache()
    keep_freed_memory()
