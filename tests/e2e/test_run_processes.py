"""Two real processes on this machine: they stop together, resume, and end as one process does."""

import signal
import socket

# Dropout is drawn per row of the global batch, and two processes hold its rows in another order.
MODEL = {"dropout": 0.0}


def start_both(program, workdir):
    """Starts process 0 and 1 of a run."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = [f"--coordinator={address}", "--num_processes=2"]
    return [program.start(workdir, *flags, f"--process_id={i}", model=MODEL, checkpoint={"every": 1}) for i in range(2)]


def test_two_processes_stop_on_sigterm_of_one_resume_and_end_as_one_process_does(program, reading, tmp_path):
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

    finished = [run.finish() for run in start_both(program, workdir)]
    assert [run.code for run in finished] == [0, 0], finished[0].err + finished[1].err
    assert f"resuming {workdir} from step {step}" in finished[0].out
    assert "2 x cpu (data 2 x fsdp 1), 2 processes" in finished[0].out
    assert "step" not in finished[1].out.replace("done: step", "")  # only the first process reports
    assert len(reading.records(workdir)) == len(reading.records(alone))
    reading.assert_close_run(workdir, alone)
