"""What a program does as a process: it ends when it is told to, and its lines cost it nothing. Each test is one small process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vit_jax import process
from vit_jax.process import EXIT_INTERRUPTED

ROOT = Path(__file__).resolve().parents[1]
START = (
    "import ctypes, gc, os, signal, sys, threading, time\nfrom vit_jax.process import *\nfrom vit_jax import process\n"
)
STUCK = """
begin("told")
print("ready", flush=True)
lock, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
libc.pthread_mutex_lock(lock)
libc.pthread_mutex_lock(lock)  # in C for ever, where no handler of Python's is called
"""
SWALLOWING = """
begin("told")
def callback(*_):  # as jax has one: Python drops what is raised here
    if stopping:
        os.kill(os.getpid(), signal.SIGTERM)
stopping = []
gc.callbacks.append(callback)
print("ready", flush=True)
stopping.append(True)
while True:
    gc.collect()
"""
THREADS = """
begin("told")
threading.Thread(target=time.sleep, args=(60,)).start()  # keeps a process from ending
with before_end(lambda code, text: os.write(1, f"left {code} {text}\\n".encode())):
    print("ready", flush=True)
    time.sleep(60)
"""
LOOP = """
begin("told")
def heard(number):
    os.write(1, b"saving\\n")
    heed.give_back()
with Heed(heard) as heed:
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
"""


def start(code):
    """A process that runs this after START."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", START + code], cwd=ROOT, text=True, **pipes)


def rest(running):
    """(what is left of standard output, standard error) at its end."""
    try:
        running.wait(20)
    finally:
        running.kill()
    return running.stdout.read(), running.stderr.read()


@pytest.mark.slow
@pytest.mark.parametrize("code", [STUCK, SWALLOWING, THREADS], ids=["stuck in C", "swallowing", "with threads"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_process_within_seconds_whatever_it_does(code, number):
    with start(code) as running:
        assert running.stdout.readline() == "ready\n"
        running.send_signal(number)
        out, err = rest(running)
    assert running.returncode == EXIT_INTERRUPTED
    assert out == ("left 75 told\ntold\n" if code is THREADS else "told\n")
    assert err == ""


@pytest.mark.slow
def test_whoever_takes_the_signals_over_decides_and_gives_them_back():
    with start(LOOP) as running:
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGINT)
        assert running.stdout.readline() == "saving\n"
        with pytest.raises(subprocess.TimeoutExpired):  # longer than the patience with a main thread that does not hear
            running.wait(2 * process.PATIENCE_S)
        running.send_signal(signal.SIGINT)
        assert rest(running) == ("told\n", "")
    assert running.returncode == EXIT_INTERRUPTED


@pytest.mark.slow
def test_a_signal_that_the_caller_ignores_stays_ignored():
    """As a shell without job control starts a command in the background."""
    code = 'signal.signal(2, signal.SIG_IGN)\nbegin("told")\nprint("ready", flush=True)\ntime.sleep(1)\nprint("done")'
    with start(code) as running:
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGINT)
        assert rest(running) == ("done\n", "")
    assert running.returncode == 0


PRINTING = """
keep_streams()
with open(sys.argv[1], "w") as file:
    for number in range(3000):
        print(f"line {number} é \\udcff")
        print("x" * 50, file=sys.stderr)
    os.write(1, b"from C, to whatever has the number of the standard output")
    file.write(f"{file.fileno()} {sys.stdout.isatty()}")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "redirected", [">&-", ">&- 2>&- <&-", "| head -1", ">/dev/full", ">/dev/full 2>&1", "2>/dev/full"]
)
def test_a_standard_stream_that_is_closed_full_or_unread_stops_nothing(tmp_path, redirected):
    (tmp_path / "program.py").write_text(START + PRINTING)
    command = f'"{sys.executable}" program.py kept {redirected}; echo ${{PIPESTATUS[0]}} >code'
    env = os.environ | {"PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run(["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, check=False, timeout=30)
    assert (tmp_path / "code").read_text() == "0\n"
    number, terminal = (tmp_path / "kept").read_text().split()
    assert int(number) > 2  # what is printed can not get into the file
    assert terminal == "False"


def test_without_a_home_folder_programs_start_without_a_compile_cache_and_say_so_once(monkeypatch, capsys):
    for name in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME", "VIT_JAX_COMPILATION_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as of a user id without a name
    process.enable_compilation_cache()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "there is no home folder: compiled programs are not kept" in said
