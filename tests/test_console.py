"""A run's lines on a terminal and in a log."""

import io
import math
import re

import pytest

from vit_jax.console import ConsoleWriter


class Terminal(io.StringIO):
    def isatty(self):
        return True


TRAIN = {
    "train/loss": 0.31234,
    "train/accuracy": 0.9123,
    "train/lr": 0.001,
    "train/epoch": 7.14,
    "time/images_per_s": 1234.5,
    "time/data_wait_share": 0.021,
    "time/eta_s": 140.4,
}


EVAL = {
    "eval/digits_test/top1": 0.975,
    "eval/digits_test/top1_low": 0.95,  # intervals are in the record only
    "eval/digits_test/top1_high": 0.99,
    "eval/digits_test/top5": 1.0,
    "eval/digits_test/loss": 0.08123,
    "eval/digits_test/num_examples": 360,
    "eval_average/digits_test/top1": 0.97777,
    "eval_average/digits_test/num_examples": 360,
    "eval/fewshot/1shot": 0.5,
    "eval/fewshot/10shot": 0.9,
}


def written(stream):
    writer = ConsoleWriter(300, 0, stream=stream)
    writer.notice("devices: 1 [cpu] :smile:")
    writer.write(100, TRAIN)
    writer.write(300, EVAL)
    writer.close()
    writer.close()
    return stream.getvalue()


def test_console_in_a_log_is_one_plain_line_per_event():
    lines = written(io.StringIO()).splitlines()
    numbers = "epoch   7.14  accuracy  91.23%  loss 0.3123  lr 1.00e-03   1234.5 images/s  data wait   2%  ETA 0:02:20"
    assert lines == [
        "devices: 1 [cpu] :smile:",
        f"step 100/300  train             {numbers}",
        "step 300/300  digits_test       top-1  97.50%  top-5 100.00%  loss 0.0812  360 examples  "
        "(average: top-1  97.78%)",
        "step 300/300  fewshot           1-shot  50.00%  10-shot  90.00%",
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_console_on_a_terminal_redraws_one_line_and_prints_evaluations_above_it(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    out = written(Terminal())
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out)
    assert "step 100/300" in plain
    assert "ETA 0:02:20 loss 0.3123 lr 1.00e-03 1234.5 images/s wait 2%" in plain
    above = [line.split("\r")[-1] for line in plain.split("\n")]
    digits = "step 300/300  digits_test       top-1  97.50%  top-5 100.00%  loss 0.0812  360 examples"
    assert f"{digits}  (average: top-1  97.78%)" in above
    assert "\x1b[2Kdevices: 1 [cpu] :smile:\n" in out  # as it was given: no markup, no emoji, no colours
    assert out.endswith("\x1b[?25h")  # the cursor is back
    assert ("━" in plain) == (width == 120)
    assert all(
        len(piece) <= width for line in plain.split("\n") for piece in line.split("\r") if "average" not in piece
    )


def test_console_on_a_terminal_goes_on_with_plain_lines_after_close(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    writer = ConsoleWriter(10, stream=Terminal())
    writer.close()
    writer.write(10, {"train/loss": 1.0})
    assert writer._stream.getvalue().endswith("\x1b[?25hstep 10/10  train             loss 1.0000\n")


def test_console_without_terminal_abilities_stays_plain(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert written(Terminal()) == written(io.StringIO())


def test_console_survives_an_unknown_eta_and_a_file_name_its_encoding_cannot_say():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    writer = ConsoleWriter(10, stream=stream)
    writer.write(1, {"train/loss": math.nan, "time/eta_s": math.inf})
    writer.notice("skipped caf\u00e9\udcff.jpg")
    said = stream.buffer.getvalue().decode()
    assert said == "step  1/10  train             loss nan\nskipped caf\\xe9\\udcff.jpg\n"


def test_seeds_and_intervals_are_in_the_record_only_and_other_figures_have_four_digits():
    stream = io.StringIO()
    scores = {"1shot": 0.5, "1shot_seed0": 0.4, "ece": 0.0123456, "ece_low": 0.01, "ece_high": 0.02, "top10": 1 / 3}
    ConsoleWriter(10, stream=stream).write(10, {f"eval/a/b/{name}": value for name, value in scores.items()})
    assert stream.getvalue() == "step 10/10  a/b               1-shot  50.00%  ece 0.01235  top-10  33.33%\n"


def test_a_run_outlives_the_reader_of_its_lines():
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    writer = ConsoleWriter(10, stream=Gone())
    writer.notice("nobody reads this")
    writer.write(1, {"train/loss": 1.0})
    writer.close()
    writer._stream.close()


def test_a_run_whose_standard_output_is_closed_writes_to_nowhere(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    writer = ConsoleWriter(10)
    writer.write(1, {"train/loss": 1.0})
    assert writer._stream.name == "/dev/null"
    writer._stream.close()
