"""Processes that meet, agree and end together: two small real ones for each slow case, and a stand-in for their service."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from vit_jax import peers
from vit_jax.types import UserError

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import os, signal, sys, time
import jax
from vit_jax import peers, process
from vit_jax.types import UserError

jax.config.update("jax_platforms", "cpu")
me, address = int(sys.argv[1]), sys.argv[2]
process.begin()

def main():
    with peers.joined(address, 2, me, meeting_s=3, heartbeat_s=3):
        peers.wait_for_all("test")
        print("met", flush=True)
        CASE
    print("done", flush=True)
    return 0

main = process.reports_user_errors(main)
process.finish(main)
"""


@pytest.fixture
def pair():
    """Starts two processes of a run that do something when they have met; a test leaves none behind."""
    started = []

    def start(case, ranks=(0, 1)):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        code = PROGRAM.replace("CASE", case.replace("\n", "\n        "))
        found = [
            subprocess.Popen([sys.executable, "-c", code, str(rank), address], cwd=ROOT, text=True, **pipes)
            for rank in ranks
        ]
        started.extend(found)
        return found

    yield start
    for process in started:
        with process:
            process.kill()


def ends(processes):
    """(exit code, standard output, standard error) of each, all within a minute."""
    found = []
    for process in processes:
        process.wait(60)
        found.append((process.returncode, process.stdout.read(), process.stderr.read()))
    return found


HANG = "time.sleep(50)"


@pytest.mark.slow
def test_processes_that_do_the_same_end_well(pair):
    for code, out, err in ends(pair("peers.agree('start', {'a': [1, {'b': 0.5}]})\npeers.agree('end', {})")):
        assert (code, out) == (0, "met\ndone\n"), err


@pytest.mark.slow
def test_processes_that_differ_all_end_with_the_names_and_both_values(pair):
    (first, _, err), (second, _, err1) = ends(
        pair(f"peers.agree('start', {{'a': me * 2, 'b': 1, f'c{{me}}': 0}})\n{HANG}")
    )
    assert (first, second) == (2, 2)
    differ = [
        "a: 0 in process 0, 2 in process 1",
        "c0: 0 in process 0, '(nothing)' in process 1",
        "c1: '(nothing)' in process 0, 0 in process 1",
    ]
    for said in (err, err1):
        lines = said.strip().splitlines()[-4:]
        assert "process 1 of 2 is not about to do what process 0 does" in lines[0]
        assert [line.strip() for line in lines[1:]] == differ
    assert "process 1 of 2 has ended: process 1 of 2" in err
    assert "error: process 1 of 2" in err1
    assert "Traceback" not in err + err1


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.slow
def test_a_mistake_that_one_process_meets_ends_the_others_with_the_same_message(pair, who):
    codes = ends(pair(f"if me == {who}: raise UserError('no such file')\n{HANG}"))
    assert [code for code, _, _ in codes] == [2, 2]
    assert codes[who][2].endswith("error: no such file\n")
    assert codes[1 - who][2].endswith(f"process {who} of 2 has ended: no such file\n")


@pytest.mark.slow
def test_a_crash_of_one_process_ends_the_others_to_be_started_again(pair):
    (first, out, err), (second, _, err1) = ends(pair(f"if me == 1: raise KeyError('x')\n{HANG}"))
    assert (first, second) == (75, 1)
    assert "process 1 of 2 has ended: KeyError: 'x'\nstart all of them again" in out
    assert err1.count("Traceback") == 1
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_signal_to_one_process_ends_all_of_them(pair):
    processes = pair(HANG)
    assert [process.stdout.readline() for process in processes] == ["met\n"] * 2
    processes[1].send_signal(signal.SIGTERM)
    (first, out, err), (second, _, _) = ends(processes)
    assert (first, second) == (75, 75)
    assert "process 1 of 2 has ended: stopped at once" in out
    assert "Traceback" not in err


IN_A_COLLECTIVE = """
import jax.numpy as jnp
from vit_jax import partition
mesh = partition.make_mesh()
total = jax.jit(jnp.sum, out_shardings=partition.replicated(mesh))
ones = jax.make_array_from_process_local_data(partition.batch_sharding(mesh), jnp.ones(1))
print(float(total(ones)), flush=True)
if me == 0: float(total(ones))
time.sleep(50)
"""


@pytest.mark.parametrize(("case", "who"), [(HANG, 0), (IN_A_COLLECTIVE.strip(), 1)], ids=["0", "in a collective"])
@pytest.mark.slow
def test_a_process_that_is_gone_ends_the_others_without_a_word_of_c(pair, case, who):
    processes = pair(case)
    for process in processes:
        assert process.stdout.readline() == "met\n"
        while case != HANG and process.stdout.readline() != "2.0\n":
            assert process.poll() is None
    time.sleep(1)
    processes[who].kill()
    code, out, err = ends(processes)[1 - who]
    assert code == 75, err
    assert out.endswith(peers.GONE + "\n")
    for sign in ("Traceback", "terminate called", "stack trace", "    @ "):
        assert sign not in err


@pytest.mark.slow
def test_a_process_that_waits_for_one_that_never_comes_is_told(pair):
    late = pair(f"peers.MEETING_S = 2\nif me == 1: peers.agree('first step', {{}})\n{HANG}")
    (alone, _, err), (also, _, err1) = ends([*pair("", [0]), *pair("", [1])])
    assert (alone, also) == (2, 2)
    for said in (err, err1):
        assert "the processes of the run did not meet (one of them did not answer); start all of them" in said
        assert "Traceback" not in said
    (first, _, err), (second, _, _) = ends(late)
    assert (first, second) == (2, 2)
    assert "some process has not come to the first step of the run" in err


class Service:
    """Stands for JAX's coordination service, seen by process 1 of 2."""

    def __init__(self, monkeypatch, answer=None, error=""):
        self.answer, self.error, self.barriers = answer, error, []
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(jax, "process_index", lambda: 1)
        monkeypatch.setattr(peers, "_client", lambda: self)

    def blocking_key_value_get(self, key, patience_ms):
        if self.answer is None:
            raise jax.errors.JaxRuntimeError(self.error)
        return json.dumps(self.answer)

    def wait_at_barrier(self, name, patience_ms):
        if self.error:
            raise jax.errors.JaxRuntimeError(self.error)
        self.barriers.append(name)


def test_facts_are_compared_as_json_and_every_one_that_differs_is_named(monkeypatch):
    service = Service(monkeypatch, answer={"a": [1, 2], "b": {"x": None}, "c": 1, "d": True})
    peers.agree("start", {"a": (1, 2), "b": {"x": None}, "c": 1, "d": True})
    assert len(service.barriers) == 1
    with pytest.raises(UserError) as told:
        peers.agree("start", {"a": (1, 3), "b": {"x": None}, "c": "1", "e": 0})
    assert str(told.value).splitlines()[1:] == [
        "  a: [1, 2] in process 0, [1, 3] in process 1",
        "  c: 1 in process 0, '1' in process 1",
        "  d: True in process 0, '(nothing)' in process 1",
        "  e: '(nothing)' in process 0, 0 in process 1",
    ]
    assert len(service.barriers) == 1  # it ends, and meets nobody


def test_a_process_that_does_not_come_is_a_message_and_another_failure_is_not_hidden(monkeypatch):
    Service(monkeypatch, answer={}, error="DEADLINE_EXCEEDED: Barrier timed out")
    for wait in (lambda: peers.wait_for_all("first step"), lambda: peers.agree("first step", {})):
        with pytest.raises(
            UserError, match="has not come to the first step of the run 30 minutes after this one; look"
        ):
            wait()
    Service(monkeypatch, error="UNAVAILABLE: the service is gone")
    with pytest.raises(jax.errors.JaxRuntimeError, match="the service is gone"):
        peers.wait_for_all("first step")


def test_a_process_alone_waits_for_nobody(monkeypatch):
    service = Service(monkeypatch, error="DEADLINE_EXCEEDED: nobody answers")
    monkeypatch.setattr(jax, "process_count", lambda: 1)
    peers.wait_for_all("end")
    peers.agree("start", {"a": 1})
    assert service.barriers == []


@pytest.mark.parametrize(
    ("error", "of_jax"),
    [
        (jax.errors.JaxRuntimeError("INTERNAL: a collective failed"), True),
        (ValueError("UNAVAILABLE: connection reset"), True),  # where the result of a failed computation is read
        (ValueError("an UNAVAILABLE: thing"), False),
        (UserError("no such file"), False),
    ],
)
def test_only_failures_of_jax_wait_for_word_of_a_lost_process(monkeypatch, error, of_jax):
    ended, waits = [], []
    for name in ("_connect", "_end_with_others"):
        monkeypatch.setattr(peers, name, lambda *_: None)
    monkeypatch.setattr(peers.time, "sleep", waits.append)

    def end(code, text):
        ended.append((code, text))
        raise SystemExit(code)

    monkeypatch.setattr(peers.process, "end", end)

    def fail(as_cause):
        if not as_cause:
            raise error
        raise RuntimeError("a step failed") from error

    for as_cause in (False, True):
        with pytest.raises(SystemExit), peers.joined("h:1", 2, 1):
            fail(as_cause)
    assert waits == [peers.HEARTBEAT_S + peers.LEAVING_S] * (2 if of_jax else 0)
    mistake = isinstance(error, UserError)
    assert ended[0] == ((2, f"error: {error}") if mistake else (1, f"{type(error).__name__}: {error}"))
    assert ended[1] == (1, "RuntimeError: a step failed")
