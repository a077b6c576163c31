"""Numbers that break down: the run stops, names the first bad step, and no checkpoint holds a bad number."""

import numpy as np
import pytest


@pytest.mark.parametrize(
    ("optim", "every", "message", "last_good"),
    [
        # The first step's rate is 0. The second's is float32's largest number, and Adam without momentum steps further than
        # the rate where a gradient grows: infinite weights are written by a step whose loss and gradient are fine.
        ({"lr": 3.4e38, "warmup": 1, "b1": 0.0}, 1, "parameters are not finite after step 2", 1),
        # The second step's rate is 5e30. Weights of that size are numbers and their squares are not, so the next loss is
        # none; found at the save after that.
        ({"lr": 2e31, "warmup": 4}, 2, "loss is nan at step 3", 2),
    ],
)
def test_a_learning_rate_too_high_stops_the_run_and_keeps_a_finite_checkpoint(
    program, reading, tmp_path, optim, every, message, last_good
):
    workdir = tmp_path / "run"
    stopped = program.run(workdir, optim=optim, checkpoint={"every": every})
    assert stopped.code == 2
    assert message in stopped.err
    assert f"the last good checkpoint is {workdir / 'checkpoints' / str(last_good)}" in stopped.err
    assert "Traceback" not in stopped.err
    assert reading.steps(workdir)[-1] == last_good
    assert reading.unfinished(workdir) == []
    arrays = reading.arrays(workdir, last_good)
    assert int(arrays["scalars['step']"]) == last_good
    assert all(np.isfinite(value).all() for value in arrays.values())
    assert reading.records(workdir) == []
