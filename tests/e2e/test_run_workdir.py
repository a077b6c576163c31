"""Whose workdir it is: a finished run is left alone, another run's is refused, and nothing on disk changes."""

import json
import shutil
import signal


def test_a_finished_run_started_again_trains_nothing_and_changes_nothing(program, reading, undisturbed, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed, workdir)
    before = reading.hash_of(workdir)
    again = program.run(workdir, checkpoint={"every": 5}, data={"workers": 1}, train={"fsdp": 1})
    assert again.code == 0, again.err
    assert f"{workdir} holds this run already, finished at step 16; nothing to train" in again.out
    assert reading.hash_of(workdir) == before


def test_a_workdir_of_a_different_run_is_refused_with_the_keys_that_differ(program, reading, undisturbed):
    before = reading.hash_of(undisturbed)
    other = {"optim": {"lr": 1.0}, "model": {"dropout": 0.2}, "data": {"workers": 1, "batch_size": 64}}
    refused = program.call("train", *program.command(undisturbed, **other))
    assert refused.code == 2
    assert f"workdir {undisturbed} holds a different run" in refused.err
    lines = [line.strip() for line in refused.err.splitlines() if " -> " in line]
    assert lines == ["data.batch_size: 120 -> 64", "model.dropout: 0.1 -> 0.2", "optim.lr: 0.002 -> 1.0"]
    assert "Traceback" not in refused.err
    assert reading.hash_of(undisturbed) == before


def test_a_dry_run_prints_the_plan_and_what_was_settled_and_writes_nothing(program, reading, undisturbed, tmp_path):
    open_keys = program.command(tmp_path / "new", model={"scan": "auto", "dtype": "auto"})
    said = program.call("train", *open_keys, "--dry-run")
    assert said.code == 0, said.err
    assert "  length     16 steps = 1.3 epochs\n" in said.out
    assert "  settled    model.dtype float32: suits the device, a CPU\n" in said.out
    assert (
        "  settled    model.scan True: suits the device, a CPU: scanned layers compile 0 s faster, and 16 steps are few\n"
        in said.out
    )
    assert "step 1/16" not in said.out
    assert not (tmp_path / "new").exists()
    before = reading.hash_of(undisturbed)
    again = program.call("train", *program.command(undisturbed), "--dry-run")
    assert "16 steps = 1.3 epochs, from step 16" in again.out
    refused = program.call("train", *program.command(undisturbed, optim={"lr": 1.0}), "--dry-run")
    assert (refused.code, "optim.lr: 0.002 -> 1.0" in refused.err) == (2, True)
    assert reading.hash_of(undisturbed) == before


def test_a_run_that_has_saved_nothing_may_be_corrected(program, reading, undisturbed, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    config = json.loads((undisturbed / "config.json").read_text())
    config["optim"]["lr"] = 17.0  # a mistake that was seen after the first lines of the log
    (workdir / "config.json").write_text(json.dumps(config))
    (workdir / "metrics.jsonl").write_text('{"step": 1, "train/loss": 1e9, "train/lr": 17.0}\n')
    corrected = program.run(workdir)
    assert corrected.code == 0, corrected.err
    assert json.loads((workdir / "config.json").read_text())["optim"]["lr"] == 0.002
    assert "17.0" not in (workdir / "metrics.jsonl").read_text()
    reading.assert_same_run(workdir, undisturbed)


def test_a_run_killed_after_its_last_save_keeps_no_more_checkpoints_than_one_that_was_not(
    program, reading, undisturbed, tmp_path
):
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed, workdir)
    (workdir / "run.json").unlink()
    kept = reading.steps(workdir)
    shutil.copytree(workdir / "checkpoints" / str(kept[0]), workdir / "checkpoints" / "1")
    again = program.run(workdir)
    assert again.code == 0, again.err
    assert reading.steps(workdir) == kept
    assert json.loads((workdir / "run.json").read_text())["steps"] == 16


def test_a_second_run_on_a_workdir_ends_at_once_and_disturbs_nothing(program, reading, undisturbed, tmp_path):
    workdir = tmp_path / "run"
    first = program.start(workdir)
    first.wait_until(lambda: (workdir / ".lock").exists() and (workdir / ".lock").read_text())  # it says who holds it
    first.process.send_signal(signal.SIGSTOP)  # so that the others find it at work, however slow they are
    before = reading.hash_of(workdir)
    words = ["-m", "vit_jax.main", *program.command(workdir)]
    others = [program.execute([*words, *more]) for more in ([], ["--config.seed=7"])]
    requeued = program.execute(words, SLURM_RESTART_COUNT="1")
    for refused in [other.finish(90) for other in others]:
        assert refused.code == 2
        assert refused.err.startswith(f"error: workdir {workdir} is used by process {first.process.pid} on ")
        assert refused.err.count("\n") == 1
    requeued.wait_until(lambda: "waiting for its end" in requeued.printed())
    assert reading.hash_of(workdir) == before
    first.process.send_signal(signal.SIGCONT)
    finished = first.finish()
    assert finished.code == 0, finished.err
    reading.assert_same_run(workdir, undisturbed)
    waited = requeued.finish()
    assert waited.code == 0, waited.err
    assert "finished at step 16; nothing to train" in waited.out
    assert not (workdir / ".lock").exists()


def test_the_last_and_the_best_step_have_names_in_run_json_and_wherever_a_run_is_read(undisturbed, reading):
    from vit_jax import load_model

    names = json.loads((undisturbed / "run.json").read_text())["checkpoints"]
    assert names["last"] == 16
    scores = [json.loads(line) for line in reading.records(undisturbed)]
    scores = {entry["step"]: entry["eval/digits/top1"] for entry in scores if "eval/digits/top1" in entry}
    assert scores[names["best"]] == max(scores.values())
    for name, step in names.items():
        _, params = load_model(f"{undisturbed}@{name}")
        kernel = reading.arrays(undisturbed, step)["params['head']['kernel']"]
        assert params["head"]["kernel"].tobytes() == kernel.tobytes()
