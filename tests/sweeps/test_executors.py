"""How runs on one machine share its cores and GPUs."""

import pytest

from vit_jax.sweeps.executors import share_of, visible_gpus


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
