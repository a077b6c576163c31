"""Exact resume: killed in the middle of anything and started again, a run ends as one that was never stopped."""

import json
import random
import time

import pytest


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_killed_three_times_ends_bit_identical_to_one_never_stopped(
    program, reading, undisturbed, tmp_path, workers
):
    workdir, delay = tmp_path / "run", random.Random(workers)
    data = {"workers": workers}

    run = program.start(workdir, data=data)  # in the middle of a save
    run.wait_until(lambda: reading.steps(workdir) and reading.unfinished(workdir))
    run.kill()
    assert reading.unfinished(workdir) != []
    first = reading.steps(workdir)[-1]
    assert first < 16

    run = program.start(workdir, data=data)  # anywhere
    run.wait_until(lambda: reading.steps(workdir)[-1] > first)
    time.sleep(delay.uniform(0, 0.2))
    run.kill()
    second = reading.steps(workdir)[-1]
    assert first < second < 16

    config = json.loads((workdir / "config.json").read_text())
    # As if by a version that did not have these keys, one of which evaluators take from the data section.
    for section in (config["data"], *config["evals"].values()):
        del section["exif"]
    del config["data"]["exclude"], config["optim"]["b1"]
    (workdir / "config.json").write_text(json.dumps(config))

    run = program.start(workdir, data=data)  # in the middle of a save again
    run.wait_until(lambda: reading.steps(workdir)[-1] > second and reading.unfinished(workdir))
    run.kill()
    assert reading.unfinished(workdir) != []
    third = reading.steps(workdir)[-1]
    assert second < third < 16

    finished = program.run(workdir, data=data)
    assert finished.code == 0, finished.err
    assert f"resuming {workdir} from step {third}" in finished.out
    assert reading.unfinished(workdir) == []
    reading.assert_same_run(workdir, undisturbed)
