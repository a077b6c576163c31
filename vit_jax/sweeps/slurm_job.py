"""The body of a sweep's SLURM job: it runs one run in a process of its own, and handles SLURM's signals for it.

SIGUSR2 (from `scancel --signal=USR2`, a time limit that nears and, on some clusters, preemption): the run saves, and the job goes
back into the queue. SIGTERM (from preemption, `scontrol requeue` and `scancel`): the run saves, and SLURM decides.
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
    """The callable of a job in the array; submitit pickles it.

    The run is a process of its own, so that this one can handle a signal from SLURM: it stops the run, which saves, and
    puts the job back into the queue.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_process": None}

    def __call__(self, folder: str) -> None:
        command = [sys.executable, "-m", "vit_jax.sweeps.job", folder]
        # SLURM signals every process of the job. The run inherits this mask, and learns of the signal from here, once.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        with (Path(folder) / LOG_FILE).open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        _wait_for(self._process.pid)
        code = self._process.wait()
        if code in (EXIT_INTERRUPTED, -signal.SIGTERM):
            # After SLURM's SIGTERM comes SIGKILL. Ending before it would turn a preempted job into a completed one, which SLURM
            # does not put back into the queue.
            time.sleep(GRACE_S)
        sys.exit(code % 256)  # for sacct and for people: a failed run is a failed job

    def checkpoint(self, folder: str) -> Any:
        """Called by submitit on the warning: stops the run and returns the call that resumes it when the job starts again."""
        import submitit

        if self._process is not None:
            self._process.terminate()
            _wait_for(self._process.pid)
        return None if is_over(Path(folder)) else submitit.helpers.DelayedSubmission(self, folder)


def _wait_for(pid: int) -> None:
    """Waits for a child's end without collecting its exit code. `Popen.wait` holds a lock for which a waiting signal handler
    would wait for ever."""
    with contextlib.suppress(ChildProcessError):  # the exit code was already collected
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
