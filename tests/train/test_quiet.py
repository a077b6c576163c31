"""Orbax is quiet around checkpoints; what comes from elsewhere is still reported."""

import logging
import sys
import types

import pytest

from vit_jax.train.quiet import quiet


@pytest.fixture
def reported(monkeypatch):
    """Errors that Python reports after a call of `quiet` in a process in which it was never called."""
    errors = []
    monkeypatch.setattr(sys, "unraisablehook", errors.append)
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    before = [logger.level for logger in loggers]
    quiet.__wrapped__()
    yield errors
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def unraisable(message, file=""):
    """What Python hands to the hook; `file` is where the coroutine was written that the error was raised in."""
    code = types.SimpleNamespace(co_filename=file)
    return types.SimpleNamespace(object=types.SimpleNamespace(cr_code=code), exc_value=RuntimeError(message))


def test_only_errors_of_orbax_and_of_a_loop_that_is_closed_are_kept_back(reported):
    sys.unraisablehook(unraisable("lost", "/lib/orbax/checkpoint/handler.py"))
    sys.unraisablehook(unraisable("Event loop is closed"))
    assert reported == []
    other = [unraisable("lost", "/lib/grain/reader.py"), types.SimpleNamespace(object=None, exc_value=OSError("full"))]
    for error in other:
        sys.unraisablehook(error)
    assert reported == other


def test_errors_that_orbax_logs_are_not_shown_and_other_loggers_stay(reported, caplog):
    logging.getLogger("absl").error("a dozen lines of a traceback")
    logging.getLogger("vit_jax.data").error("a corrupt image")
    assert caplog.messages == ["a corrupt image"]


def test_a_second_call_changes_nothing():
    before = sys.unraisablehook
    try:
        quiet()
        hook = sys.unraisablehook
        quiet()
        assert sys.unraisablehook is hook
    finally:
        sys.unraisablehook = before
