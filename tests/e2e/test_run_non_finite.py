"""Numbers that break down: the run stops, names the first bad step, and no checkpoint holds a bad number."""

import json

import numpy as np
import pytest


@pytest.mark.parametrize(
    ("lr", "every", "message", "last_good"),
    [
        # Warm-up makes the first step's rate 0 and the second's a quarter. 5e38 is beyond float32: bad weights are written
        # by a step whose loss and gradient are fine.
        (2e39, 1, "not finite after step 2", 1),
        # 5e30 is not, but its square is: the weights are numbers and the next loss is none. Found at the save after that.
        (2e31, 2, "loss is nan at step 3", 2),
    ],
)
def test_a_learning_rate_too_high_stops_the_run_and_keeps_a_finite_checkpoint(
    program, reading, tmp_path, lr, every, message, last_good
):
    workdir = tmp_path / "run"
    stopped = program.run(workdir, optim={"lr": lr, "warmup": 4}, checkpoint={"every": every})
    assert stopped.code == 2
    assert message in stopped.err
    assert f"the last good checkpoint is {workdir / 'checkpoints' / str(last_good)}" in stopped.err
    assert "Traceback" not in stopped.err
    assert reading.steps(workdir)[-1] == last_good
    assert reading.unfinished(workdir) == []
    arrays = reading.arrays(workdir, last_good)
    assert int(arrays["scalars['step']"]) == last_good
    assert all(np.isfinite(value).all() for value in arrays.values())
    assert [json.loads(line)["step"] for line in reading.records(workdir)] == []
