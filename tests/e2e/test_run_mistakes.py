"""Mistakes on the command line: exit code 2, one message that names the right thing, and no folder made.

One process on eight fake devices runs `main` for all of them, since each start costs seconds.
"""

import json

import pytest

DRIVER = """
import contextlib, io, json, sys, traceback
from vit_jax.main import main

def outcome(words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except BaseException:
            code = traceback.format_exc()
    return [code, err.getvalue(), out.getvalue()]

mistakes = json.load(open(sys.argv[1]))
json.dump({name: outcome(words) for name, words in mistakes.items()}, open(sys.argv[2], "w"))
"""

# Name: (further words, what the message says).
OVERRIDES = {
    "misspelt key": (["--config.model.widht=32"], "config.model.widht does not exist; did you mean 'width'?"),
    "key of a section": (["--config.lr=1"], "config.lr does not exist; did you mean config.optim.lr?"),
    "misspelt section": (["--config.optm.lr=1"], "config.optm does not exist; did you mean 'optim'?"),
    "wrong type": (["--config.optim.lr=fast"], "config.optim.lr=fast: expected a number, found 'fast'"),
    "not a duration": (
        ["--config.evals.digits.every=often"],
        "config.evals.digits.every=often: expected a duration",
    ),
    "key without value": (["--config.optim.lr", "1"], "write --config.optim.lr=VALUE"),
    "unknown choice": (["--config.optim.name=adma"], "expected one of 'adam', 'sgd'"),
    "unknown flag": (["--proces_id=1"], "did you mean '--process-id'?"),
    "patch does not divide image": (
        ["--config.data.resolution=(18,16)"],
        "18x16 pixels is not divisible by the patch of 4x4; choose a resolution (data.resolution) that is, for example 16x16",
    ),
    "heads do not divide width": (["--config.model.num_heads=3"], "width 32 is not divisible by 3 heads"),
    "no heads": (["--config.model.num_heads=0"], "model.num_heads is 0; expected 1 or more"),
    "batch does not divide": (
        ["--config.data.batch_size=100", "--config.train.accumulation=3"],
        "data.batch_size=100 is not divisible by 8 devices x 3 accumulation steps = 24; use 96 or 120",
    ),
    "evaluation batch does not divide": (
        ["--config.evals.digits.batch_size=12"],
        "config.evals.digits: batch_size=12 is not divisible by 8 devices",
    ),
    "no batch": (["--config.data.batch_size=0"], "data.batch_size is 0; expected 1 or more"),
    "no accumulation": (["--config.train.accumulation=0"], "train.accumulation is 0; expected 1 or more"),
    "devices do not divide": (["--config.train.fsdp=3"], "does not divide the 8 devices; choose one of [1, 2, 4, 8]"),
    "warm-up too long": (["--config.optim.warmup=30"], "warmup is 30 steps, longer than the run of 16"),
    "unknown split": (["--config.data.split=trian"], "the splits are train (1,437), test (360)"),
    "too few classes": (["--config.model.num_classes=3"], "num_classes is 3, but digits has 10 classes"),
    "best of nothing": (
        ["--config.checkpoint.keep_best=1", "--config.checkpoint.best_metric=eval/tset/top1"],
        "checkpoint.best_metric is 'eval/tset/top1'; expected one of eval/digits/METRIC",
    ),
    "no such weights": (["--config.init=missing.npz"], "missing.npz"),
    "data folder that cannot be": (
        ["--config.data.data_dir=/proc/none"],
        "the data folder /proc/none cannot be made: ",
    ),
    "negative seed": (["--config.seed=-1"], "config.seed is -1; expected an integer, 0 or more"),
}
CONFIGS = {
    "unknown config argument": ("configs/quickstart.py:pretrian", "did you mean 'pretrain'?"),
    "unknown variant": ("configs/finetune.py:variant=X/16", "no size 'X'; sizes are Nano, Ti, S, B, L, H, g, G"),
    "missing config file": ("configs/quickstrat.py", "did you mean 'quickstart'?"),
}


@pytest.fixture(scope="module")
def outcomes(program, tmp_path_factory):
    """What `main` did with each mistake: {name: [exit code or traceback, standard error, standard output]}."""
    folder = tmp_path_factory.mktemp("mistakes")
    workdir = folder / "run"
    mistakes = {name: [*program.command(workdir), *words] for name, (words, _) in OVERRIDES.items()}
    mistakes |= {name: [f"--config={spec}", f"--workdir={workdir}"] for name, (spec, _) in CONFIGS.items()}
    mistakes["two at once"] = [*program.command(workdir), "--config.model.widht=32", "--config.optim.rl=1"]
    mistakes["no workdir"] = program.command(workdir)[:1]
    (folder / "mistakes.json").write_text(json.dumps(mistakes))
    words = ["-c", DRIVER, str(folder / "mistakes.json"), str(folder / "outcomes.json")]
    finished = program.execute(words, devices=8).finish()
    assert finished.code == 0, finished.err
    assert not workdir.exists()
    return json.loads((folder / "outcomes.json").read_text())


@pytest.mark.parametrize("name", [*OVERRIDES, *CONFIGS])
def test_a_mistake_is_answered_with_the_right_thing_and_code_2(outcomes, name):
    code, err, out = outcomes[name]
    assert code == 2, code
    assert err.startswith("error: ")
    assert (OVERRIDES | CONFIGS)[name][1] in err
    assert out == ""


def test_two_mistakes_are_told_at_once(outcomes):
    code, err, _ = outcomes["two at once"]
    assert code == 2
    assert "did you mean 'width'?" in err
    assert "config.optim.rl does not exist" in err


def test_a_missing_flag_is_named(outcomes):
    code, err, _ = outcomes["no workdir"]
    assert code == 2
    assert "--workdir" in err.splitlines()[0]
