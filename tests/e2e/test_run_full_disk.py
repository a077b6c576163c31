"""A disk that fills up while the run writes: it says so, loses nothing, and goes on once there is room.

The kernel's limit on the size of a file stands for the full disk: it is set on the running process from outside.
"""

import resource

import numpy as np
import pytest


@pytest.mark.parametrize(
    ("every", "largest_file", "what"),
    [
        (2, 30_000, "a checkpoint in"),  # the arrays do not fit, the records do
        (7, 300, "a file in"),  # nor does the second record, before the next checkpoint is due
    ],
)
def test_a_full_disk_stops_the_run_and_the_same_command_goes_on_bit_identical(
    program, reading, undisturbed, tmp_path, every, largest_file, what
):
    workdir, checkpoint = tmp_path / "run", {"every": every}
    run = program.start(workdir, checkpoint=checkpoint)
    run.wait_until(lambda: reading.steps(workdir))
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    stopped = run.finish()
    assert stopped.code == 2, stopped.err
    last_good = reading.steps(workdir)[-1]
    assert f"error: {what} {workdir}" in stopped.err
    assert "could not be written" in stopped.err
    assert f"the last good checkpoint is {workdir / 'checkpoints' / str(last_good)}" in stopped.err
    assert "start the same command again" in stopped.err
    assert last_good < 16
    assert all(np.isfinite(value).all() for value in reading.arrays(workdir, last_good).values())

    finished = program.run(workdir, checkpoint=checkpoint)
    assert finished.code == 0, finished.err
    assert f"from step {last_good}" in finished.out
    reading.assert_same_run(workdir, undisturbed)
