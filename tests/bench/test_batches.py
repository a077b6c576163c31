"""Steps over batch sizes: which sizes are tried, what ends the search, and the table and picture of the rest."""

import subprocess
import types

import pytest
from PIL import Image

from vit_jax.bench import batches
from vit_jax.bench.batches import measure_alone, parse_sizes, plot, sweep, to_markdown
from vit_jax.types import UserError


def figures(size, share=None):
    step = 0.01 + 0.001 * size
    return {
        "batch_size": size,
        "device": "cpu",
        "images_per_s": size / step,
        "step_s_median": step,
        "peak_share": share,
        "peak_memory_bytes": 10**9 * size,
        "process_start_to_first_step_s": 3.21,
    }


@pytest.mark.parametrize(
    ("text", "expected"), [("8", ([8], False)), ("8,16,64", ([8, 16, 64], False)), ("4,8+", ([4, 8], True))]
)
def test_sizes_are_a_list_or_a_start(text, expected):
    assert parse_sizes(text) == expected


@pytest.mark.parametrize("text", ["", "0", "8,", "-8", "8++", "8;16", "all"])
def test_other_texts_are_refused(text):
    with pytest.raises(UserError, match=r"expected batch sizes such as 8,16,32, or 8\+"):
        parse_sizes(text)


def test_sizes_double_until_one_does_not_fit_and_none_is_tried_after_it():
    tried = []

    def measure(size):
        tried.append(size)
        return figures(size) if size < 50 else None

    assert [row["batch_size"] for row in sweep([8], True, measure)] == [8, 16, 32]
    assert tried == [8, 16, 32, 64]
    tried.clear()
    assert [row["batch_size"] for row in sweep([16, 64, 32], False, measure)] == [16]
    assert tried == [16, 64]
    tried.clear()
    assert [row["batch_size"] for row in sweep([2], True, measure, room=17 * 10**9)] == [2, 4, 8, 16]  # 16 GB of 17
    assert tried == [2, 4, 8, 16]


def answer(monkeypatch, **done):
    result = types.SimpleNamespace(**({"returncode": 0, "stdout": "", "stderr": ""} | done))
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command) or result)
    return commands


def test_each_size_is_a_process_whose_end_says_whether_it_fits(monkeypatch):
    commands = answer(monkeypatch, stdout='a warning\n{"batch_size": 8}\n')
    assert measure_alone(["--mode=train"])(8) == {"batch_size": 8}
    assert commands[0][1:] == ["-m", "vit_jax", "bench", "--mode=train", "--batch=8", "--json"]
    answer(monkeypatch, returncode=1, stderr="XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")
    assert measure_alone([])(8) is None
    answer(monkeypatch, returncode=-9)
    assert measure_alone([])(8) is None
    answer(
        monkeypatch, returncode=2, stderr="note\nerror: config.data.batch_size is 7, which 8 devices do not divide\n"
    )
    with pytest.raises(UserError, match=r"^batch 7: config\.data\.batch_size is 7"):
        measure_alone([])(7)


def test_the_table_leaves_an_unknown_share_empty():
    table = to_markdown([figures(8), figures(90, 0.123)]).splitlines()
    assert table[2] == "| 8 | 444.4 | 18.0 |  | 8.00 | 3.2 |"
    assert table[3] == "| 90 | 900.0 | 100.0 | 12.3% | 90.00 | 3.2 |"


@pytest.mark.parametrize(("share", "panels"), [(None, 2), (0.4, 3)])
def test_the_picture_has_a_panel_for_each_known_figure(tmp_path, share, panels):
    plot([figures(size, share) for size in (8, 16, 32)], "S/16", tmp_path / "new" / "s16.png")
    with Image.open(tmp_path / "new" / "s16.png") as picture:
        width, height = picture.size
    assert abs(width - panels * 4.2 * 130) <= 1
    assert height == 442


def test_free_memory_is_that_of_the_host():
    free = batches.free_memory()
    assert free is None or 10**8 < free < 10**14
