"""One process in a folder. The others of these tests are small processes of their own."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vit_jax.locks import LOCK_FILE, hold
from vit_jax.types import UserError

ROOT = Path(__file__).resolve().parents[1]
HOLD = """
import os, signal, sys
from pathlib import Path
from vit_jax.locks import hold
from vit_jax.process import begin
begin("told")
with hold(Path(sys.argv[1]), wait=len(sys.argv) > 2):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder, *words):
    """A process that holds a folder until its standard input ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", HOLD, str(folder), *words], cwd=ROOT, text=True, **pipes)


def test_a_folder_is_one_process_s_and_the_next_one_is_told_whose(tmp_path):
    with holder(tmp_path / "run") as first:
        assert first.stdout.readline() == "held\n"
        expected = (
            rf"^workdir {tmp_path}/run is used by process {first.pid} on .+, since 20\d\d-.*; wait for it, stop it, or"
        )
        with pytest.raises(UserError, match=expected), hold(tmp_path / "run"):
            pass
        first.communicate("")
    with hold(tmp_path / "run"):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_lock_ends_with_its_process(tmp_path, number):
    with holder(tmp_path) as first:
        assert first.stdout.readline() == "held\n"
        first.send_signal(number)
        first.wait(20)
    # What was killed leaves the file, which locks nothing.
    assert os.listdir(tmp_path) == ([LOCK_FILE] if number == signal.SIGKILL else [])
    with hold(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


def test_who_waits_goes_on_when_the_first_has_ended_and_says_once_what_it_waits_for(tmp_path):
    with holder(tmp_path) as first:
        assert first.stdout.readline() == "held\n"
        with holder(tmp_path, "wait") as second:
            said = second.stdout.readline()
            assert f"is used by process {first.pid} on" in said
            assert said.endswith("; waiting for its end\n")
            first.communicate("")
            assert second.stdout.readline() == "held\n"
            second.communicate("")
    assert os.listdir(tmp_path) == []


def test_who_waits_ends_on_a_signal(tmp_path):
    with holder(tmp_path) as first, holder(tmp_path, "wait") as second:
        first.stdout.readline()
        second.stdout.readline()
        second.send_signal(signal.SIGTERM)
        assert second.wait(20) == 75
        first.communicate("")


def test_a_folder_that_was_made_for_nothing_is_removed_and_one_with_something_stays(tmp_path):
    (tmp_path / "there").mkdir()
    for place in ("there", "made/for/this"):
        with hold(tmp_path / place):
            assert (tmp_path / place / LOCK_FILE).exists()
    assert os.listdir(tmp_path) == ["there"]
    with hold(tmp_path / "made" / "run"):
        (tmp_path / "made" / "run" / "config.json").touch()
    assert os.listdir(tmp_path / "made" / "run") == ["config.json"]


def test_a_process_that_holds_a_folder_holds_it_again(tmp_path):
    with hold(tmp_path):
        with hold(tmp_path / "." / "x" / ".."):
            pass
        assert os.listdir(tmp_path) == [LOCK_FILE]
        descriptor = os.open(tmp_path / LOCK_FILE, os.O_RDWR)  # as another process would
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)


def test_a_lock_whose_file_was_removed_and_made_anew_is_not_taken_for_the_folder_s(tmp_path, monkeypatch):
    taken = []

    def flock(descriptor, how, real=fcntl.flock):
        real(descriptor, how)
        if not taken:  # another process let go, and a third one locked, between our opening and our locking
            taken.append(descriptor)
            (tmp_path / LOCK_FILE).unlink()
            (tmp_path / LOCK_FILE).touch()

    monkeypatch.setattr(fcntl, "flock", flock)
    with hold(tmp_path):
        assert "process" in (tmp_path / LOCK_FILE).read_text()
    assert taken


def test_a_file_system_without_locks_is_told_of_once_and_stops_nothing(tmp_path, monkeypatch, caplog):
    def unsupported(*_):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with hold(tmp_path):
        pass
    assert [record.getMessage().count("this file system has no locks") for record in caplog.records] == [1]


@pytest.mark.parametrize("left_by_another_user", [False, True])
def test_a_folder_that_may_only_be_read_is_locked_where_it_can_be_and_stops_nothing(
    tmp_path, monkeypatch, left_by_another_user
):
    if left_by_another_user:
        (tmp_path / LOCK_FILE).write_text("process 1 on elsewhere")

    def read_only(path, flags, *mode, real=os.open):
        if flags & (os.O_CREAT | os.O_RDWR):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", read_only)
    monkeypatch.setattr(Path, "unlink", lambda path: read_only(path, os.O_CREAT))
    with hold(tmp_path):
        pass
    if left_by_another_user:
        with open(tmp_path / LOCK_FILE) as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(UserError, match="is used by process 1 on elsewhere"), hold(tmp_path):
                pass


def test_a_folder_that_cannot_be_made_is_one_message(tmp_path):
    (tmp_path / "file").touch()
    expected = r"^workdir .*/file/run cannot be written to: .*; give another --workdir$"
    with pytest.raises(UserError, match=expected), hold(tmp_path / "file" / "run"):
        pass
