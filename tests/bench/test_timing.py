"""The benchmark's arithmetic: which times count, quartiles, and the share of a peak."""

import jax
import jax.numpy as jnp
import pytest

from vit_jax.bench import timing


class Device:
    """As much of a device as the benchmark reads."""

    def __init__(self, kind="cpu", peak_bytes=None):
        self.device_kind = kind
        self._stats = None if peak_bytes is None else {"peak_bytes_in_use": peak_bytes}

    def memory_stats(self):
        return self._stats


def summarize(times=(0.1, 0.2, 0.4, 0.3), kind="NVIDIA H200", count=2, dtype="bfloat16", flops=10**12):
    devices = [Device(kind, 10 + i) for i in range(count)]
    return timing.summarize(list(times), batch_size=100, flops_per_image=flops, devices=devices, dtype=dtype)


def test_median_quartiles_and_throughput_by_hand():
    found = summarize()
    # Quartiles of (n + 1) p: positions 1.25, 2.5 and 3.75 of 0.1, 0.2, 0.3, 0.4.
    assert (found["step_s_median"], found["step_s_quartiles"]) == (0.25, [0.125, 0.375])
    assert found["images_per_s"] == 400
    assert found["timed_steps"] == 4
    assert found["peak_memory_bytes"] == 11  # of the fullest device


@pytest.mark.parametrize(
    ("kind", "dtype", "peak"),
    [
        ("NVIDIA H200", "bfloat16", 989e12),
        ("NVIDIA H100 PCIe", "bfloat16", 756e12),
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312e12),
        ("NVIDIA L40S", "bfloat16", 362e12),
        ("NVIDIA L4", "bfloat16", 121e12),
        ("TPU v5 lite", "bfloat16", 197e12),
        ("TPU v5p", "bfloat16", 459e12),
        ("TPU v6 lite", "bfloat16", 918e12),
        ("NVIDIA H200", "float32", None),
        ("cpu", "bfloat16", None),
    ],
)
def test_the_share_of_the_peak_is_of_all_devices_in_bf16(kind, dtype, peak):
    expected = None if peak is None else pytest.approx(400 * 1e12 / (2 * peak), abs=5e-5)
    assert summarize(kind=kind, dtype=dtype)["peak_share"] == expected


def test_only_steps_after_the_warm_up_count_and_one_is_always_in_flight(monkeypatch):
    now, log = [0.0], []

    def step(i):
        log.append(f"start {i}")
        return i

    def wait(i):
        log.append(f"end {i}")
        now[0] += 100.0 if i < 3 else 1.0 + i  # the warm-up is slow

    monkeypatch.setattr(timing.jax, "block_until_ready", wait)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    times = timing.time_steps(step, warmup=2, steps=4)
    assert times == [4.0, 5.0, 6.0, 7.0]  # steps 3 to 6
    assert log[:4] == ["start 0", "start 1", "end 0", "start 2"]
    assert log[-1] == "end 6"


def test_real_steps_are_timed():
    work = jax.jit(lambda x: (x @ x).sum())
    times = timing.time_steps(lambda i: work(jnp.ones((64, 64))), warmup=1, steps=5)
    assert len(times) == 5
    assert all(0 < t < 10 for t in times)


def test_memory_of_a_device_that_does_not_say_is_the_process_own():
    own = timing.peak_memory_bytes([Device()])
    assert 2**26 < own < 2**40
    assert timing.peak_memory_bytes([Device(peak_bytes=5), Device(peak_bytes=7)]) == 7
