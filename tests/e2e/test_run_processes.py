"""Two real processes on this machine: they do the same, stop together, resume, and end as one process does."""

import signal
import socket

import numpy as np
import pytest

# Dropout is drawn per row of the global batch, and two processes hold its rows in another order.
MODEL = {"dropout": 0.0, "mlp_dim": 512}  # 32 x 512 elements: fsdp splits these kernels


def start_both(program, workdir, second=(), **train):
    """Starts process 0 and 1 of a run; `second` are further words of the second, `train` keys of both."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = [f"--coordinator={address}", "--num_processes=2"]
    more = [(), second]
    return [
        program.start(workdir, *flags, f"--process_id={i}", *more[i], model=MODEL, checkpoint={"every": 1}, train=train)
        for i in range(2)
    ]


def test_two_processes_stop_or_lose_one_resume_and_end_as_one_process_does(program, reading, tmp_path):
    alone, workdir = tmp_path / "alone", tmp_path / "run"
    assert program.run(alone, model=MODEL, checkpoint={"every": 8}).code == 0

    both = start_both(program, workdir)
    both[0].wait_until(lambda: reading.steps(workdir))
    both[1].process.send_signal(signal.SIGTERM)
    stopped = [run.finish() for run in both]
    assert [run.code for run in stopped] == [75, 75], stopped[0].err + stopped[1].err
    step = reading.steps(workdir)[-1]
    assert step < 16
    assert all(f"stopped after step {step} of 16 and saved" in run.out for run in stopped)

    both = start_both(program, workdir)
    both[1].wait_until(lambda: reading.steps(workdir)[-1] > step)
    both[0].process.kill()
    left = both[1].finish(60)
    assert left.code == 75, left.err
    assert "another process of this run is gone, so this one ends; start all of them again" in left.out
    assert "Traceback" not in left.err
    step = reading.steps(workdir)[-1]
    assert step < 16

    finished = [run.finish() for run in start_both(program, workdir, fsdp=2)]
    assert [run.code for run in finished] == [0, 0], finished[0].err + finished[1].err
    assert f"resuming {workdir} from step {step}" in finished[0].out
    assert "2 x cpu (data 1 x fsdp 2), 2 processes" in finished[0].out
    assert "step" not in finished[1].out.replace("done: step", "")  # only the first process reports
    assert len(reading.records(workdir)) == len(reading.records(alone))
    reading.assert_close_run(workdir, alone)


@pytest.fixture
def other_digits(digits_dir, tmp_path, monkeypatch):
    """A folder in which digits is prepared with other labels: as many of each, and files of the same size."""
    import sklearn.datasets

    from vit_jax.data.prepare.prepare import prepare

    digits = sklearn.datasets.load_digits()
    digits.target = np.roll(digits.target, 1)
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: digits)
    prepare("digits", data_dir=str(tmp_path / "tfds"))
    return tmp_path / "tfds"


def test_processes_with_other_configs_or_data_train_nothing(program, other_digits, tmp_path):
    differing = {"config.optim.lr": "--config.optim.lr=0.5", "data (": f"--config.data.data_dir={other_digits}"}
    pairs = {key: start_both(program, tmp_path / str(len(key)), [word]) for key, word in differing.items()}
    for key, pair in pairs.items():
        for run in pair:
            refused = run.finish()
            assert refused.code == 2
            lines = [line.strip() for line in refused.err.splitlines() if " in process 0, " in line]
            assert [line[: len(key)] for line in lines] == [key]
            assert "Traceback" not in refused.err
        assert not (tmp_path / str(len(key))).exists()
