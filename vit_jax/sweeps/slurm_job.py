"""What a SLURM job of a sweep does: it holds one run in a process of its own, and answers SLURM's signals for it.

SIGUSR2, of `scancel --signal=USR2`, of a time limit that nears and, where a cluster is set up so, of preemption: the run saves,
and the job goes back into the queue. SIGTERM, of preemption, `scontrol requeue` and `scancel`: the run saves, and SLURM decides.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from vit_jax.process import EXIT_INTERRUPTED
from vit_jax.sweeps.executors import GRACE_S
from vit_jax.sweeps.job import LOG_FILE, is_over


class SlurmJob:
    """What a job of the array calls; pickled by submitit.

    The run is a process of its own, so that a signal of SLURM's can be answered: it is told to stop, saves, and the job is
    put back into the queue.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_process": None}

    def __call__(self, folder: str) -> None:
        command = [sys.executable, "-m", "vit_jax.sweeps.job", folder]
        # SLURM sends its warning to every process of the job. The run, which inherits the mask, hears of it from here, once.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        with (Path(folder) / LOG_FILE).open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        _wait_for(self._process.pid)
        code = self._process.wait()
        if code in (EXIT_INTERRUPTED, -signal.SIGTERM):
            # SIGTERM of SLURM's, which SIGKILL follows. Ending first would make a completed job of one that is preempted, and
            # that one would not be put back into the queue.
            time.sleep(GRACE_S)
        sys.exit(code % 256)  # for sacct, and for people: a run that failed is a job that failed

    def checkpoint(self, folder: str) -> Any:
        """Called by submitit on the warning: stops the run and says what to do when the job starts again."""
        import submitit

        if self._process is not None:
            self._process.terminate()
            _wait_for(self._process.pid)
        return None if is_over(Path(folder)) else submitit.helpers.DelayedSubmission(self, folder)


def _wait_for(pid: int) -> None:
    """Waits for a child's end and leaves its exit code to be read. `Popen.wait` holds a lock that a signal's handler, which
    waits too, would wait for in vain."""
    with contextlib.suppress(ChildProcessError):  # it was read
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
