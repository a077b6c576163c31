"""A masked run from its config to a classifier: killed, resumed, scored, drawn, loaded and fine-tuned."""

import json
import re
from pathlib import Path

import PIL.Image

ROOT = Path(__file__).parents[2]
STEPS = 12


def words(program, workdir, spec, **keys):
    values = {
        "data.data_dir": program.data_dir,
        "train.duration": STEPS,
        "train.log_every": 3,
        "checkpoint.every": 2,
        **keys,
    }
    return [
        "-m",
        "vit_jax.main",
        f"--config={spec}",
        f"--workdir={workdir}",
        *(f"--config.{k}={x}" for k, x in values.items()),
    ]


def finish(program, *arguments, **keys):
    finished = program.execute(words(program, *arguments, **keys)).finish()
    assert finished.code == 0, finished.err
    return finished


def test_an_mae_is_killed_and_resumed_to_the_bit_and_starts_a_classifier(program, reading, tmp_path):
    spec = "configs/masked.py:objective=mae,variant=Nano/4,smoke"
    keys = {"train.average_decay": 0.9, "data.batch_size": 120, "evals.val.every": 4, "evals.val.split": "test[:100]"}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(program, whole, spec, **keys)
    run = program.execute(words(program, cut, spec, **keys))
    run.wait_until(lambda: reading.steps(cut))
    run.kill()
    first = reading.steps(cut)[-1]
    assert first < STEPS
    assert f"resuming {cut} from step {first}" in finish(program, cut, spec, **keys).out
    reading.assert_same_run(cut, whole, STEPS)
    # Scores of raw and averaged weights, and a sheet of eight rows at every evaluation.
    scores = json.loads(reading.records(whole)[-1])
    assert {"eval/val/loss", "eval/val/baseline", "eval_average/val/loss", "eval/val/num_examples"} <= set(scores)
    assert scores["eval/val/num_examples"] == 100
    drawn = sorted(path.name for path in (whole / "pictures").iterdir())
    assert drawn == ["val-12.png", "val-4.png", "val-8.png"]
    with PIL.Image.open(whole / "pictures/val-12.png") as sheet:
        assert sheet.height == 14 + 8 * (96 + 4)
    assert (whole / "pictures/val-12.png").read_bytes() == (cut / "pictures/val-12.png").read_bytes()
    # Loaded, it predicts every patch; a classifier takes its encoder and leaves the decoder aside.
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "masked.md").read_text(), re.DOTALL | re.MULTILINE)
    found: dict = {}
    exec(block.replace('"runs/mae"', repr(str(whole))), found)
    assert (found["extra"]["patches"].shape, int(found["extra"]["hidden"].sum())) == ((2, 16, 4 * 4 * 3), 2 * 12)
    tuned = tmp_path / "tuned"
    finish(
        program, tuned, f"configs/finetune.py:dataset=digits,smoke,init={whole}", **{"evals.test.split": "test[:100]"}
    )
    report = (tuned / "init_report.txt").read_text()
    assert "decoder/pred/kernel decoder of the mae model, which vit has not" in report
    assert "loaded   embedding/kernel" in report
    # And a classifier starts a masked model.
    back = tmp_path / "back"
    masked = "configs/masked.py:objective=simmim,variant=Nano/4,smoke"
    finish(program, back, masked, **{"init": tuned, "data.batch_size": 120, "evals.val.split": "test[:100]"})
    report = (back / "init_report.txt").read_text()
    assert "dropped  head/kernel" in report
    assert "fresh    mask_token 1x1x64 the checkpoint's model has none" in report
