"""Silences Orbax around checkpoints: the caller gets an error and makes one message of it.

Orbax logs a dozen lines per save, and also logs its errors with a traceback. If one file of many fails, because of a full disk or
a damaged folder, TensorStore's threads still report on the others, to an asyncio loop that no longer exists.
"""

from __future__ import annotations

import functools
import logging
import sys
import warnings
from typing import Any


@functools.cache
def quiet() -> None:
    """Silences Orbax and its threads, whose errors say the same; only the first call has an effect."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine '.*' was never awaited", RuntimeWarning)
    before = sys.unraisablehook

    def hook(about: Any) -> None:
        of_orbax = "orbax" in getattr(getattr(about.object, "cr_code", None), "co_filename", "")
        if not of_orbax and str(about.exc_value) != "Event loop is closed":
            before(about)

    sys.unraisablehook = hook
