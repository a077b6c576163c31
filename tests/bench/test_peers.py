"""The comparison with other input pipelines: medians of runs in turns, the table, and what to do without an environment."""

import sys

import pytest

from vit_jax.bench.peers import check_python, measure_in_turns, to_markdown
from vit_jax.types import UserError


def test_commands_run_in_turns_and_medians_count(tmp_path):
    log = tmp_path / "log"
    script = (
        "import json, sys; log = open(sys.argv[1], 'a+'); log.seek(0); n = len(log.read()); log.write(sys.argv[2]);"
        "print('noise'); print(json.dumps({'n': n, 'name': 'x', 'flag': True}))"
    )
    commands = {name: [sys.executable, "-c", script, str(log), name] for name in "ABC"}
    assert measure_in_turns(commands, 3) == {"A": {"n": 3}, "B": {"n": 4}, "C": {"n": 5}}  # of 0 3 6, 1 4 7, 2 5 8
    assert log.read_text() == "ABCABCABC"


def test_a_pipeline_that_fails_says_its_last_words():
    with pytest.raises(UserError, match="peer failed; its last words: out of paper"):
        measure_in_turns({"peer": [sys.executable, "-c", "import sys; sys.exit('out of paper')"]}, 1)


def test_the_table_compares_with_its_first_row():
    row = {
        "images_per_s": 2000.4,
        "cpu_ms_per_image": 0.8,
        "memory_bytes": 250e6,
        "process_start_to_first_batch_s": 1.44,
    }
    table = to_markdown({"ours": row | {"images_per_cpu_s": 1250.0}, "theirs": row | {"images_per_cpu_s": 500.0}})
    assert table.splitlines()[2:] == [
        "| ours | 2000 | 1250 | 0.80 | 250 | 1.4 | 1.00 x |",
        "| theirs | 2000 | 500 | 0.80 | 250 | 1.4 | 2.50 x |",
    ]


@pytest.mark.parametrize("python", ["", "/nowhere/python", sys.executable])
def test_without_the_peers_environment_the_command_that_makes_one_is_said(python, tmp_path, monkeypatch):
    (tmp_path / "tensorflow.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match=r"pip install -r requirements-benchmark.txt"):
        check_python(python)
