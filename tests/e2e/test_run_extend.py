"""A run that is made longer: to the bit the longer run where its learning rates are; else only where that is asked for."""

import json
import shutil

CONSTANT = {"decay": "constant", "warmup": 3}


def test_two_more_steps_at_a_constant_rate_are_those_of_the_longer_run(program, reading, tmp_path):
    short, whole = tmp_path / "short", tmp_path / "whole"
    for workdir, duration in ((short, 4), (whole, 6), (short, 6)):
        finished = program.run(workdir, optim=CONSTANT, train={"duration": duration})
        assert finished.code == 0, finished.err
    assert "extended at step 4 from 4 to 6 steps; the learning rates of the steps done are those" in finished.out
    found, expected = reading.arrays(short, 6), reading.arrays(whole, 6)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name].tobytes() != expected[name].tobytes()] == []
    (entry,) = json.loads((short / "extensions.json").read_text())
    assert (entry["step"], entry["old_steps"], entry["new_steps"], entry["rates_changed"]) == (4, 4, 6, False)
    assert json.loads((short / "run.json").read_text())["steps"] == 6
    assert json.loads((short / "config.json").read_text())["train"]["duration"] == "6"  # text, as in the config file
    # What it was before is now a different run, and shorter.
    refused = program.call("train", *program.command(short, optim=CONSTANT, train={"duration": 4}))
    assert refused.code == 2
    assert "train.duration: '6' -> '4'" in refused.err


def test_another_schedule_has_to_be_asked_for_and_is_recorded(program, reading, undisturbed, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed, workdir)
    before = reading.hash_of(workdir)
    refused = program.call("train", *program.command(workdir, train={"duration": 18}))
    assert refused.code == 2
    assert "the longer schedule has other learning rates for steps that are done (step " in refused.err
    assert "--extend continues from step 16" in refused.err
    assert reading.hash_of(workdir) == before
    refused = program.call("train", *program.command(workdir, train={"duration": 18}, optim={"lr": 1.0}), "--extend")
    assert "holds a different run" in refused.err
    longer = program.run(workdir, "--extend", train={"duration": 18})
    assert longer.code == 0, longer.err
    assert "extended at step 16 from 16 to 18 steps; the schedule is the longer one from here" in longer.out
    (entry,) = json.loads((workdir / "extensions.json").read_text())
    assert entry["rates_changed"] is True
    assert entry["old_rate"] < entry["new_rate"]
    assert [json.loads(line)["step"] for line in reading.records(workdir)][-1] == 18
