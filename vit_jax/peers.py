"""The processes of one run: how they meet, agree that they do the same work, wait for one another, and end together.

Only this file knows about processes. All communication uses the key-value store and the barriers of JAX's coordination
service, which process 0 runs. When one process ends, the others end within a minute: exit code 2 for a mistake that one
process met, 75 for a crash, a signal or a lost machine (all of them resume when started again).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import json
import os
import re
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax._src import distributed

from vit_jax import process
from vit_jax.cluster import check_coordinator, local_devices, visible_gpus
from vit_jax.types import UserError

HEARTBEAT_S = 30  # a process without a sign of life for so long counts as gone
MEETING_S = 1800  # patience with the slowest process: it opens its data and compiles
LEAVING_S = 5  # time for the other processes to read why one ends
STATUS = re.compile(
    r"(UNKNOWN|INTERNAL|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED|FAILED_PRECONDITION): "
)  # of C++ status errors
ENDED = "vit_jax/ended"
GONE = (
    "another process of this run is gone, so this one ends; start all of them again with the same command: they resume from "
    "the last checkpoint, if there is one"
)
_meetings = itertools.count()
_kept: list[Any] = []  # objects that C++ calls, kept from garbage collection
_gone = threading.Event()


@contextlib.contextmanager
def joined(
    coordinator: str, num_processes: int, process_id: int, *, meeting_s: int = 300, heartbeat_s: int = HEARTBEAT_S
) -> Iterator[None]:
    """Makes this process one of the processes of a run, inside the `with`. If one ends early, for any reason, all end.

    Args:
      coordinator: `host:port` of process 0, or `auto` to detect SLURM, GKE or a TPU VM.
      num_processes: processes of the run.
      process_id: the index of this process, in [0, num_processes).
      meeting_s: seconds in which all processes must have started.
      heartbeat_s: seconds without a sign of life after which a process counts as gone, and all others end.

    Raises:
      UserError: the processes do not meet, or could not.
    """
    check_coordinator(coordinator, os.environ)
    _connect(coordinator, num_processes, process_id, meeting_s, heartbeat_s)
    listener = threading.Thread(target=_end_with_others, daemon=True)
    listener.start()
    with process.before_end(_tell_others):
        try:
            yield
        except Exception as error:
            if _is_of_jax(error):  # a collective fails before the service reports a lost process
                time.sleep(heartbeat_s + LEAVING_S)
            if isinstance(error, UserError):
                process.end(process.EXIT_USER_ERROR, f"error: {error}")
            traceback.print_exc()
            process.end(1, f"{type(error).__name__}: {error}")
        wait_for_all("end")
    jax.distributed.shutdown()
    listener.join(LEAVING_S)  # otherwise it would return from C++ into a Python interpreter that is shutting down


def _connect(coordinator: str, num_processes: int, process_id: int, meeting_s: int, heartbeat_s: int) -> None:
    """Joins the coordination service."""
    # JAX's preemption service takes SIGTERM away from Python, and nothing reads it before the first step.
    jax.config.update("jax_enable_preemption_service", False)
    flags: dict[str, Any] = {
        "initialization_timeout": meeting_s,
        "heartbeat_timeout_seconds": heartbeat_s,
        "shutdown_timeout_seconds": heartbeat_s,
    }
    if coordinator == "auto":
        flags["local_device_ids"] = local_devices(os.environ, visible_gpus(os.environ))
    else:
        flags |= {"coordinator_address": coordinator, "num_processes": num_processes, "process_id": process_id}
    try:
        with _losses_end_this_process():
            jax.distributed.initialize(**flags)
    except Exception as error:  # several kinds are possible; std::bad_cast is explained below
        reason = "one of them did not answer" if "bad_cast" in str(error) else error
        who = "" if coordinator == "auto" else f" --num-processes={num_processes} --process-id={process_id}"
        raise UserError(
            f"--coordinator={coordinator}{who}: the processes of the run did not meet ({reason}); start all of them, each with "
            "its own --process-id, with the address of process 0"
        ) from error


@contextlib.contextmanager
def _losses_end_this_process() -> Iterator[None]:
    """Makes the client that JAX opens inside the `with` end this process cleanly when another process is gone.

    By default the client aborts with a C++ stack trace. It accepts a callback, but jaxlib 0.10 fails to convert the argument of
    a Python callback and throws std::bad_cast, which nothing catches: so this also replaces the C++ terminate handler.
    """

    def lost(*_: object) -> None:
        _gone.set()
        process.end(process.EXIT_INTERRUPTED, GONE)

    with contextlib.suppress(OSError, AttributeError):  # with another C++ library, JAX aborts in its own way
        library = ctypes.CDLL("libstdc++.so.6")
        library.__cxa_current_exception_type.restype = ctypes.POINTER(ctypes.c_char_p)
        handler = ctypes.CFUNCTYPE(None)
        take_over = library._ZSt13set_terminatePFvvE
        take_over.restype = handler

        def terminate() -> None:
            kind = library.__cxa_current_exception_type()
            if kind and kind[1] == b"St8bad_cast":
                lost()
            before()

        _kept.append(handler(terminate))
        before = take_over(_kept[-1])
    library_of_jax: Any = getattr(distributed, "_jax", None)
    open_client = getattr(library_of_jax, "get_distributed_runtime_client", None)
    if open_client is None:  # this version of JAX has no such function: it aborts in its own way
        yield
        return
    library_of_jax.get_distributed_runtime_client = functools.partial(open_client, missed_heartbeat_callback=lost)
    try:
        yield
    finally:
        library_of_jax.get_distributed_runtime_client = open_client


def _client() -> Any:
    return distributed.global_state.client


def _end_with_others() -> None:
    """Waits, in a thread, until a process announces its early end, and then ends this one."""
    client, me = _client(), distributed.global_state.process_id
    while True:
        try:
            last_words = json.loads(client.blocking_key_value_get(ENDED, 3_600_000))
            break
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                return  # this process ends, or the service is gone, which ends it elsewhere
    if last_words["process"] != me:
        text = last_words["text"].removeprefix("error: ")
        text = f"process {last_words['process']} of {distributed.global_state.num_processes} has ended: {text}"
        if last_words["code"] == process.EXIT_USER_ERROR:
            process.end(process.EXIT_USER_ERROR, text)
        process.end(process.EXIT_INTERRUPTED, f"{text}\nstart all of them again with the same command: they resume")


def _tell_others(code: int, text: str) -> None:
    """Announces why this process ends, and waits a moment: the service must live until the others have read it."""
    if _gone.is_set():
        return
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # another process was first
        last_words = {"process": distributed.global_state.process_id, "code": code, "text": text}
        _client().key_value_set(ENDED, json.dumps(last_words))
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        _client().wait_at_barrier(f"{ENDED}/read", LEAVING_S * 1000)


def _is_of_jax(error: BaseException | None) -> bool:
    """Whether an error comes from JAX's runtime, either itself or as the cause of the error that wraps it."""
    if error is None:
        return False
    # A failed computation raises a ValueError where its result is read.
    of_jax = isinstance(error, jax.errors.JaxRuntimeError) or STATUS.match(str(error)) is not None
    return of_jax or _is_of_jax(error.__cause__ or (None if error.__suppress_context__ else error.__context__))


@contextlib.contextmanager
def _patience(what: str) -> Iterator[None]:
    """Turns a timeout while waiting into a UserError."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
            raise
        raise UserError(
            f"some process has not come to the {what} of the run {MEETING_S // 60} minutes after this one; look what it does"
        ) from None


def wait_for_all(what: str) -> None:
    """Waits until every process has arrived; returns at once if there is only one.

    Raises:
      UserError: a process has not arrived within half an hour.
    """
    if jax.process_count() > 1:
        with _patience(what):
            _client().wait_at_barrier(f"vit_jax/{what}/{next(_meetings)}", MEETING_S * 1000)


def agree(what: str, facts: Mapping[str, Any]) -> None:
    """Checks that every process is about to do the same, and waits for all; does nothing if there is only one process.

    Args:
      what: name of the next stage, for messages.
      facts: {name: JSON value}.

    Raises:
      UserError: some values of this process differ from those of process 0; or a process has not arrived within half an hour.
    """
    if jax.process_count() == 1:
        return
    key, me = f"vit_jax/{what}/{next(_meetings)}/facts", jax.process_index()
    mine = json.loads(json.dumps(facts))
    if me == 0:
        _client().key_value_set(key, json.dumps(mine))
    else:
        with _patience(what):
            first = json.loads(_client().blocking_key_value_get(key, MEETING_S * 1000))
        missing = "(nothing)"
        differ = [
            f"{name}: {first.get(name, missing)!r} in process 0, {mine.get(name, missing)!r} in process {me}"
            for name in sorted({*first, *mine})
            if first.get(name, missing) != mine.get(name, missing)
        ]
        if differ:
            raise UserError(
                f"process {me} of {jax.process_count()} is not about to do what process 0 does; start all of them with the same "
                "command, code, packages and data. They differ in:\n  " + "\n  ".join(differ)
            )
    wait_for_all(what)


@contextlib.contextmanager
def stopping_together() -> Iterator[None]:
    """Makes SIGTERM in any process stop all of them after the same step, inside the `with`; see `reached_stop`."""
    if distributed.global_state.preemption_sync_manager is None:
        jax.config.update("jax_enable_preemption_service", True)
        distributed.global_state.initialize_preemption_sync_manager()
    try:
        yield
    finally:  # JAX replaced the handler below Python, whose signal module has not noticed
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def reached_stop(step: int) -> bool:
    """Whether all processes stop after `step`; every process must call this after every step."""
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(step)
