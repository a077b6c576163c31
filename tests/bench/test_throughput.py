"""Throughput of an input pipeline: time and memory of all its processes, per second of CPU time."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from vit_jax.bench import throughput

ROOT = Path(__file__).resolve().parents[2]


def test_the_age_of_the_process_is_counted_from_its_start(monkeypatch):
    age = throughput.process_age_s()
    assert 0 < age < 24 * 3600
    # Field 22 of /proc/self/stat is the start in ticks since boot; a name with spaces and brackets shifts nothing.
    stat = "7 (py (test) x) R " + " ".join(str(i) for i in range(4, 22)) + " 500 0"
    monkeypatch.setattr(throughput.Path, "read_text", lambda self: stat)
    monkeypatch.setattr(throughput.time, "clock_gettime", lambda clock: 12.5)
    assert throughput.process_age_s() == pytest.approx(12.5 - 500 / os.sysconf("SC_CLK_TCK"))
    broken = types.SimpleNamespace(read_text=lambda: "nothing")
    monkeypatch.setattr(throughput, "Path", lambda _: broken)
    assert throughput.process_age_s() > 0


def test_an_input_pipeline_is_measured_per_second_of_cpu_time(monkeypatch):
    from types import SimpleNamespace

    from vit_jax.bench import throughput

    now = SimpleNamespace(wall=100.0, cpu=7.0)

    def batches():
        while True:  # each batch takes 0.5 s, and 0.125 s of CPU time
            now.wall, now.cpu = now.wall + 0.5, now.cpu + 0.125
            yield None

    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: now.wall))
    monkeypatch.setattr(throughput, "measure_usage", lambda: throughput.Usage(now.cpu, int(now.cpu * 8), 9))
    monkeypatch.setattr(throughput, "process_age_s", lambda: 3.0)
    found = throughput.measure_batches(batches(), batch_size=10, batches=20, began=99.0, warmup=3)
    # The first batch, 3 of the warm-up, and 20 that count: 200 images in 10 s, or in 2.5 s of CPU time.
    assert (found["images"], found["images_per_s"], found["images_per_cpu_s"]) == (200, 20.0, 80.0)
    assert (found["cpu_ms_per_image"], found["time_to_first_batch_s"]) == (12.5, 1.5)
    # 7 s and 4 batches before, 2 batches of a tenth, and 20 in all: 8 bytes for each second.
    assert (found["early_memory_bytes"], found["memory_bytes"], found["peak_memory_bytes"]) == (62, 80, 9)


# In a process of its own: what other tests have left to be freed, or to be compiled, would be counted too.
OWN = """
import json, subprocess, sys
from vit_jax.bench.throughput import measure_usage
work = "import time; kept = bytearray(400_000_000)\\nwhile time.process_time() < 0.5: pass\\nprint(flush=True); input()"
before = measure_usage()
with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
    child.stdout.readline()
    after = measure_usage()
    child.communicate(b"\\n")
print(json.dumps([before, after]))
"""


@pytest.mark.slow
def test_cpu_time_and_memory_are_those_of_all_processes():
    done = subprocess.run([sys.executable, "-c", OWN], cwd=ROOT, check=True, capture_output=True, text=True)
    before, after = (throughput.Usage(*usage) for usage in json.loads(done.stdout))
    assert 0.4 < after.cpu_s - before.cpu_s < 1.5
    assert 380e6 < after.memory_bytes - before.memory_bytes < 430e6
    assert after.peak_bytes >= after.memory_bytes


def test_photographs_are_of_the_size_said_and_the_same_each_time(tmp_path):
    import PIL.Image

    from vit_jax.bench.throughput import write_photographs

    for name in ("a", "b"):
        write_photographs(tmp_path / name, 4)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.jpg"))
    assert [str(f) for f in files] == [f"train/{i % 2}/{i:06}.jpg" for i in (0, 2, 1, 3)]
    for file in files:
        with PIL.Image.open(tmp_path / "a" / file) as picture:
            assert picture.size == (500, 375)
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
