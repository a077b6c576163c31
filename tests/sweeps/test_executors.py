"""How runs on one machine share its cores and GPUs."""

import os
import sys
import time
from pathlib import Path

import pytest

from vit_jax.sweeps import executors
from vit_jax.sweeps.executors import ROOT, LocalExecutor, share_of, visible_gpus
from vit_jax.types import UserError


@pytest.mark.parametrize(
    ("items", "parts", "expected"),
    [
        ([0, 1, 2, 3], 2, [[0, 1], [2, 3]]),
        ([0, 1, 2, 3, 4], 2, [[0, 1], [2, 3]]),  # equal parts: a run's speed does not depend on its place
        (["0", "1"], 2, [["0"], ["1"]]),
        ([4, 7], 5, [[4], [7], [4], [7], [4]]),  # more runs than cores
        ([], 3, [[], [], []]),
    ],
)
def test_shares_are_equal_and_apart_where_there_is_enough(items, parts, expected):
    assert [share_of(items, parts, part) for part in range(parts)] == expected


@pytest.mark.parametrize(
    ("value", "expected"), [("", []), ("-1", []), ("0", ["0"]), ("3,GPU-5f2b,1", ["3", "GPU-5f2b", "1"])]
)
def test_gpus_are_those_that_cuda_visible_devices_names(monkeypatch, value, expected):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == expected


def test_gpus_are_counted_by_the_driver_s_tool_but_where_jax_is_to_run_on_the_cpu(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    listed = [
        "GPU 0: NVIDIA H200 (UUID: GPU-a)",
        "  MIG 1g.18gb     Device  0: (UUID: MIG-c)",
        "GPU 1: NVIDIA H200 (UUID: GPU-b)",
    ]
    tool.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in listed))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert visible_gpus() == []


def test_a_machine_without_the_driver_s_tool_has_no_gpus(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert visible_gpus() == []


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Folders of three runs, and Python as a script that writes what it was told and waits for the file `over`."""
    script = tmp_path / "python"
    script.write_text(
        """#!/bin/sh
trap 'echo saved; exit 75' TERM
echo "$@ | $CUDA_VISIBLE_DEVICES | $PYTHONPATH"
while [ ! -e "$3/over" ]; do sleep 0.02; done
"""
    )
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {4, 5, 6, 7})
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    return folders


def told(folder):
    """The line that a run has written."""
    until = time.monotonic() + 20
    while not (text := (folder / "log.txt").read_text()).endswith("\n"):
        assert time.monotonic() < until
        time.sleep(0.005)
    return text


def test_each_run_has_its_share_of_cores_and_gpus_and_gives_it_back(started):
    executor = LocalExecutor(2, ["0", "3"])
    executor.start(started[:2])
    assert executor.room() == 0
    expected = [
        f"-m vit_jax.sweeps.job {folder} --parent={os.getpid()} --cores={cores} | {gpu} | {ROOT}{os.pathsep}/theirs\n"
        for folder, cores, gpu in zip(started, ("4,5", "6,7"), ("0", "3"), strict=False)
    ]
    assert [told(folder) for folder in started[:2]] == expected
    (started[1] / "over").touch()
    while not (ended := executor.ended()):
        time.sleep(0.005)
    assert (ended, executor.room()) == ([started[1]], 1)
    executor.start(started[2:])
    assert "--cores=6,7 | 3 | " in told(started[2])  # the share of the run that has ended
    assert executor.stop() == "what ran has saved; the same command resumes"
    assert [told(folder).endswith("saved\n") for folder in started] == [True, False, True]


def test_a_run_that_does_not_stop_is_killed_when_its_time_is_up(started, monkeypatch):
    monkeypatch.setattr(executors, "GRACE_S", 0.1)
    script = Path(sys.executable)
    script.write_text(script.read_text().replace("echo saved; exit 75", ""))
    executor = LocalExecutor(1, [])
    executor.start(started[:1])
    told(started[0])
    executor.stop()
    assert executor.ended() == started[:1]


def test_more_runs_at_a_time_than_gpus_are_refused():
    with pytest.raises(UserError, match="--parallel=3: there are 2 GPUs, and a run needs one of its own"):
        LocalExecutor(3, ["0", "1"])
    with pytest.raises(UserError, match="--parallel=0: expected 1 or more"):
        LocalExecutor(0, [])
