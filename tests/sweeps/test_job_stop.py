"""A run that is told to stop stops."""

import signal
import subprocess
import sys

PROGRAM = """
import signal, time
from vit_jax.sweeps.job import stop
signal.signal(signal.SIGTERM, stop)
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("swallowed", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("heard", flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
"""


def test_one_sigterm_is_heard_though_the_first_exception_is_swallowed():
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    assert out == "swallowed\nheard\n"
    assert process.returncode == 0
