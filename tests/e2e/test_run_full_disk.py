"""A disk that fills up while the run writes: it says so, loses nothing, and goes on once there is room.

The kernel's limit on the size of a file stands for the full disk: it is set on the running process from outside.
"""

import resource

import numpy as np


def limit_files(run, size):
    """Lets a running process write no file larger than `size` bytes."""
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_a_full_disk_during_a_save_stops_the_run_and_the_same_command_goes_on_bit_identical(
    program, reading, undisturbed, tmp_path
):
    workdir = tmp_path / "run"
    run = program.start(workdir)
    run.wait_until(lambda: reading.steps(workdir))
    limit_files(run, 30_000)  # the arrays do not fit, the records do
    stopped = run.finish()
    assert stopped.code == 2, stopped.err
    last_good = reading.steps(workdir)[-1]
    assert last_good < 16
    assert stopped.err.startswith(f"error: a checkpoint in {workdir / 'checkpoints'} could not be written: ")
    assert stopped.err.count("\n") == 2
    assert f"the last good checkpoint is {workdir / 'checkpoints' / str(last_good)}; free disk space" in stopped.err
    assert all(np.isfinite(value).all() for value in reading.arrays(workdir, last_good).values())

    finished = program.run(workdir)
    assert finished.code == 0, finished.err
    assert f"from step {last_good}" in finished.out
    reading.assert_same_run(workdir, undisturbed)


def test_a_full_disk_before_the_first_step_is_told_and_leaves_a_workdir_that_starts(
    program, reading, undisturbed, tmp_path
):
    workdir = tmp_path / "run"
    config, parameters = ((undisturbed / name).stat().st_size for name in ("config.json", "parameters.txt"))
    assert config + 100 < parameters
    run = program.start(workdir)
    limit_files(run, config + 100)  # room for config.json, but not for parameters.txt
    stopped = run.finish()
    assert stopped.code == 2, stopped.err
    assert (
        "could not be written: [Errno 27] File too large\nno checkpoint was saved before; free disk space"
        in stopped.err
    )
    assert "Traceback" not in stopped.err
    assert reading.steps(workdir) == []

    run = program.start(workdir)
    run.wait_until(lambda: reading.steps(workdir))
