"""Silence around checkpoints: whoever saves or reads one gets an error and makes a message of it, once.

Orbax logs a dozen lines a save, and with a traceback what it raises as well. Where one file of many fails, by a full disk or a
damaged folder, TensorStore's threads still report on the others, to a loop of asyncio that is gone by then.
"""

from __future__ import annotations

import functools
import logging
import sys
import warnings
from typing import Any


@functools.cache
def quiet() -> None:
    """Leaves what Orbax and its threads say to the errors that they raise; all that is done here, it does once."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine '.*' was never awaited", RuntimeWarning)
    before = sys.unraisablehook

    def hook(about: Any) -> None:
        of_orbax = "orbax" in getattr(getattr(about.object, "cr_code", None), "co_filename", "")
        if not of_orbax and str(about.exc_value) != "Event loop is closed":
            before(about)

    sys.unraisablehook = hook
