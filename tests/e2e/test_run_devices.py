"""A checkpoint belongs to no number of devices."""


def test_a_run_moves_from_eight_devices_to_four_and_to_one(program, reading, undisturbed, tmp_path):
    workdir = tmp_path / "run"
    run = program.start(workdir, devices=8, train={"fsdp": 8})
    run.wait_until(lambda: reading.steps(workdir))
    run.kill()
    first = reading.steps(workdir)[-1]
    assert "8 x cpu (data 1 x fsdp 8)" in run.printed()

    run = program.start(workdir, devices=4, train={"fsdp": 2})
    run.wait_until(lambda: reading.steps(workdir)[-1] > first)
    run.kill()
    second = reading.steps(workdir)[-1]
    assert f"resuming {workdir} from step {first}" in run.printed()
    assert "4 x cpu (data 2 x fsdp 2)" in run.printed()
    assert second < 16

    finished = program.run(workdir)
    assert finished.code == 0, finished.err
    assert f"resuming {workdir} from step {second}" in finished.out
    assert "1 x cpu" in finished.out
    reading.assert_close_run(workdir, undisturbed)
