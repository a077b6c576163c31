"""The writers of a run's numbers: records that survive kills and resumes without a trace."""

import contextlib
import glob
import json
import math
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vit_jax.metrics.jsonl import read_jsonl
from vit_jax.metrics.writers import JsonlWriter, MetricWriters, TensorBoardWriter, Writer, make_writers
from vit_jax.types import UserError

ROOT = Path(__file__).resolve().parents[2]


def record(step):
    return {"train/loss": 1.0 / step, "train/lr": 1e-3 * step}


def run_to(path, first, last, resume_step):
    """Writes the records of steps first..last, as a run does between a start and a kill."""
    writer = JsonlWriter(path, resume_step)
    for step in range(first, last + 1):
        writer.write(step, record(step))
    return writer


# metrics.jsonl


def test_jsonl_line_is_the_documented_one(tmp_path):
    writer = JsonlWriter(tmp_path / "new" / "metrics.jsonl", -1)
    writer.write(100, {"train/loss": 0.31, "eval/digits/num_examples": 360})
    writer.write(101, {"train/loss": 1 / 3})
    writer.close()
    assert (tmp_path / "new" / "metrics.jsonl").read_bytes() == (
        b'{"step": 100, "train/loss": 0.31, "eval/digits/num_examples": 360}\n'
        b'{"step": 101, "train/loss": 0.3333333333333333}\n'
    )


def test_jsonl_has_each_record_as_soon_as_write_returns(tmp_path):
    writer = JsonlWriter(tmp_path / "m.jsonl", -1)
    writer.write(1, {"train/loss": 2.0})
    assert read_jsonl(tmp_path / "m.jsonl") == [{"step": 1, "train/loss": 2.0}]
    writer.close()


def test_jsonl_resume_drops_later_steps_and_a_torn_line_and_equals_the_run_never_stopped(tmp_path):
    run_to(tmp_path / "whole.jsonl", 1, 9, -1).close()
    run_to(tmp_path / "m.jsonl", 1, 7, -1).close()
    with open(tmp_path / "m.jsonl", "ab") as f:
        f.write(b'{"step": 8, "train/lo')
    assert [r["step"] for r in read_jsonl(tmp_path / "m.jsonl")] == [1, 2, 3, 4, 5, 6, 7]
    run_to(tmp_path / "m.jsonl", 6, 9, 5).close()
    assert (tmp_path / "m.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.jsonl", "whole.jsonl"]


def test_jsonl_resume_keeps_a_last_record_that_lacks_only_its_newline(tmp_path):
    (tmp_path / "m.jsonl").write_bytes(b'{"step": 1}\n{"step": 2}')
    writer = JsonlWriter(tmp_path / "m.jsonl", 2)
    writer.write(3, {})
    writer.close()
    assert (tmp_path / "m.jsonl").read_bytes() == b'{"step": 1}\n{"step": 2}\n{"step": 3}\n'


def test_jsonl_is_never_half_rewritten_on_resume(tmp_path, monkeypatch):
    run_to(tmp_path / "m.jsonl", 1, 4, -1).close()
    before = (tmp_path / "m.jsonl").read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        JsonlWriter(tmp_path / "m.jsonl", 2)
    assert (tmp_path / "m.jsonl").read_bytes() == before


def test_jsonl_full_disk_leaves_no_part_of_a_record(tmp_path):
    writer = run_to(tmp_path / "m.jsonl", 1, 1, -1)
    before, disk = (tmp_path / "m.jsonl").read_bytes(), writer._file

    class FullDisk:
        fileno = disk.fileno

        def __init__(self):
            self.room = 7

        def write(self, data):
            if not self.room:
                raise OSError(28, "No space left on device")
            taken, self.room = disk.write(data[: self.room]), 0
            return taken

    writer._file = FullDisk()
    with pytest.raises(OSError, match="No space left"):
        writer.write(2, record(2))
    disk.close()
    assert (tmp_path / "m.jsonl").read_bytes() == before


def test_jsonl_reaches_the_disk_on_flush_on_close_and_before_it_replaces_the_old_file(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_size), fsync(fd)))
    writer = JsonlWriter(tmp_path / "m.jsonl", -1)
    writer.write(1, {})
    writer.flush()
    writer.write(2, {})
    writer.close()
    writer.close()
    JsonlWriter(tmp_path / "m.jsonl", 1).close()
    line = len(b'{"step": 1}\n')
    assert synced == [line, 2 * line, line, line]


def test_jsonl_holds_nan_and_infinities_as_valid_json(tmp_path):
    values = {"a": math.nan, "b": math.inf, "c": -math.inf}
    writer = JsonlWriter(tmp_path / "m.jsonl", -1)
    writer.write(1, values)
    writer.close()
    assert json.loads((tmp_path / "m.jsonl").read_text()) == {"step": 1, "a": "nan", "b": "inf", "c": "-inf"}
    (back,) = read_jsonl(tmp_path / "m.jsonl")
    assert math.isnan(back["a"])
    assert (back["b"], back["c"]) == (math.inf, -math.inf)


def test_jsonl_refuses_a_bucket_it_cannot_append_to():
    with pytest.raises(UserError, match=r"gs://bucket/run/metrics\.jsonl"):
        JsonlWriter("gs://bucket/run/metrics.jsonl", -1)


def test_kill_9_three_times_leaves_a_file_that_resumes_to_that_of_a_run_never_stopped(tmp_path):
    path = tmp_path / "m.jsonl"
    code = (
        "import sys; from vit_jax.metrics.writers import JsonlWriter\n"
        "writer, step = JsonlWriter(sys.argv[1], int(sys.argv[2])), int(sys.argv[2])\n"
        "while True:\n"
        "    step += 1; writer.write(step, {'train/loss': 1.0 / step, 'train/lr': 1e-3 * step})\n"
    )
    resume_step = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code, str(path), str(resume_step)], cwd=ROOT)
        size, limit = path.stat().st_size if path.exists() else 0, time.monotonic() + 20
        while not path.exists() or path.stat().st_size < size + 4000:
            assert process.poll() is None, "the writing process ended by itself"
            assert time.monotonic() < limit, "the writing process writes nothing"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        steps = [r["step"] for r in read_jsonl(path)]
        assert steps == list(range(1, len(steps) + 1))
        resume_step = len(steps) - 10  # The last checkpoint is older than the last record.
    run_to(path, resume_step + 1, resume_step + 20, resume_step).close()
    run_to(tmp_path / "whole.jsonl", 1, resume_step + 20, -1).close()
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


# TensorBoard


def read_events(directory):
    """Parses event files by hand: length (8 bytes), its checksum (4), an Event proto, its checksum (4)."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(glob.glob(f"{directory}/*tfevents*")):
        data = Path(path).read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def scalars_of(events):
    return [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value]


def test_tensorboard_files_hold_the_scalars_and_take_nan_without_a_word(tmp_path, caplog):
    writer = TensorBoardWriter(tmp_path, -1)
    writer.write(100, {"train/loss": 0.5, "eval/digits/top1": 0.75})
    writer.write(200, {"train/loss": 0.25})
    writer.write(300, {"train/loss": math.nan})
    writer.close()
    expected = [(100, "train/loss", 0.5), (100, "eval/digits/top1", 0.75), (200, "train/loss", 0.25)]
    *found, (step, tag, value) = scalars_of(read_events(tmp_path))
    assert found == expected
    assert (step, tag, math.isnan(value)) == (300, "train/loss", True)
    assert not caplog.records


def test_tensorboard_on_resume_hides_what_comes_after_the_checkpoint_and_overwrites_no_file(tmp_path):
    first = TensorBoardWriter(tmp_path, -1)
    first.write(5, {"train/loss": 0.5})
    first.write(7, {"train/loss": 9.0})
    first.close()
    second = TensorBoardWriter(tmp_path, 5)
    second.write(6, {"train/loss": 0.25})
    second.close()
    events = list(read_events(tmp_path))
    assert len(scalars_of(events)) == 3
    # TensorBoard drops what it has read from the step of a START on (status 1), that step included.
    assert sorted(e.step for e in events if e.session_log.status == 1) == [0, 6]


def test_a_full_disk_under_the_tensorboard_files_is_an_error_and_not_a_wait_for_ever(tmp_path):
    writer = TensorBoardWriter(tmp_path, -1)
    with contextlib.closing(open("/dev/full", "wb", buffering=0)) as full:
        disk, writer._file._py_recordio_writer._writer = writer._file._py_recordio_writer._writer, full
        with pytest.raises(OSError, match="No space left on device"):
            writer.write(1, {"train/loss": 0.5})
        writer._file._py_recordio_writer._writer = disk
    writer.close()


def test_importing_writers_imports_no_library_and_writing_neither_tensorflow_nor_jax(tmp_path):
    code = (
        "import sys; import vit_jax.metrics.writers as m\n"
        "assert not {'rich', 'tensorboardX', 'matplotlib', 'numpy', 'jax', 'wandb', 'mlflow'} & set(sys.modules)\n"
        "w = m.make_writers(sys.argv[1], total_steps=2, start_step=0, quiet=True)\n"
        "w.write(1, {'train/loss': 1.0}); w.close()\n"
        "assert 'tensorboardX' in sys.modules and not {'tensorflow', 'jax', 'torch'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# All of them


def test_make_writers_writes_all_three_and_resumes_from_the_checkpoints_step(tmp_path, capsys):
    with make_writers(tmp_path, total_steps=20, start_step=0) as writers:
        for step in (0, 10, 20):
            writers.write(np.int64(step), {"train/loss": np.float32(0.5), "n": np.int32(3)})
        writers.notice("half-way")
        writers.flush()
    assert capsys.readouterr().out.splitlines()[-2:] == ["step 20/20  train             loss 0.5000", "half-way"]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert lines == [f'{{"step": {step}, "train/loss": 0.5, "n": 3}}' for step in (0, 10, 20)]
    assert len(scalars_of(read_events(tmp_path / "tensorboard"))) == 6
    make_writers(tmp_path, total_steps=20, start_step=10, quiet=True).close()
    assert [r["step"] for r in read_jsonl(tmp_path / "metrics.jsonl")] == [0, 10]
    make_writers(tmp_path, total_steps=20, start_step=0, quiet=True).close()
    assert read_jsonl(tmp_path / "metrics.jsonl") == []
    assert capsys.readouterr().out == ""


def test_make_writers_off_the_primary_process_touches_nothing(tmp_path, capsys):
    class OnDevice:
        def __float__(self):
            raise AssertionError("a process that writes nothing waits for the device")

    with make_writers(tmp_path / "run", total_steps=20, start_step=0, primary=False) as writers:
        writers.write(10, {"train/loss": OnDevice()})
        writers.notice("unheard")
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().out == ""


def test_metric_writers_close_each_writer_although_one_fails():
    closed = []

    class Closes(Writer):
        def close(self):
            closed.append(self)

    class Fails(Closes):
        def close(self):
            super().close()
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), MetricWriters([Closes(), Fails(), Closes()]):
        pass
    assert len(closed) == 3
