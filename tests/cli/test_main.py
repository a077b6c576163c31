"""`vit_jax VERB`: the table, what a start costs, and how every verb's help reads."""

import importlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vit_jax.cli import main as cli

ROOT = Path(__file__).resolve().parents[2]
HELP = """
import contextlib, io, json, sys
from vit_jax.cli.main import VERBS, main
shown = {}
for name in VERBS:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            main([name, "--help"])
        except SystemExit as end:
            shown[name] = [end.code, out.getvalue()]
heavy = sorted({"jax", "flax", "matplotlib", "tensorflow_datasets"} & set(sys.modules))
print(json.dumps([shown, heavy]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("optimize", [[], ["-OO"]], ids=["", "without docstrings"])
def test_the_help_of_every_verb_begins_with_an_example_and_imports_nothing_heavy(optimize):
    done = subprocess.run([sys.executable, *optimize, "-c", HELP], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    shown, heavy = json.loads(done.stdout)
    assert list(shown) == list(cli.VERBS)
    assert heavy == []
    for name, (code, text) in shown.items():
        assert code == 0
        assert text.startswith(f"  vit_jax {name} ")
        assert "\nusage: vit_jax " in text
        assert "%%" not in text
        assert ("--set" in text) == ("num_heads=3" in text)
        assert not [word for word in text.split() if word.startswith("--") and "_" in word.partition("=")[0]], name


def test_a_module_of_cli_is_a_verb_and_is_short():
    files = {path.stem: path for path in (ROOT / "vit_jax" / "cli").glob("*.py")}
    assert set(files) - {"__init__", "main", "flags", "writers"} == set(cli.VERBS)


def test_the_table_is_shown_and_only_the_verb_that_runs_is_imported():
    code = """import sys; from vit_jax.cli.main import main; main(['--help'])
print(sorted(m for m in sys.modules if m.split('.')[0] == 'vit_jax'))"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    *lines, loaded = done.stdout.splitlines()
    assert lines[0] == f"  {cli.EXAMPLE}"
    assert [line.split()[0] for line in lines if line.startswith("  ")][1:] == list(cli.VERBS)
    assert loaded == str(
        [
            "vit_jax",
            "vit_jax.cli",
            "vit_jax.cli.main",
            "vit_jax.memory",
            "vit_jax.process",
            "vit_jax.targets",
            "vit_jax.types",
        ]
    )


def test_no_verb_and_a_misspelt_one_are_mistakes(capsys):
    assert cli.main([]) == 2
    assert cli.main(["trian"]) == 2
    assert "error: there is no verb 'trian'; did you mean 'train'?" in capsys.readouterr().err
    assert cli.main(["--version"]) == 0


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_ends_a_verb_quietly(tmp_path):
    for number in range(3):
        PIL.Image.fromarray(np.full((16, 16, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    command = [sys.executable, "-m", "vit_jax", "predict", f"--model={ROOT}/tests/golden/timm_token", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    with process.stderr as errors:
        assert errors.read() == ""
    assert process.wait(60) == 128 + signal.SIGPIPE


@pytest.mark.parametrize(("verb", "words"), [("quickstart", []), ("sweep", ["--config=configs/vtab.py:init=x.npz"])])
def test_verbs_that_need_a_local_folder_refuse_a_url(capsys, verb, words):
    module = importlib.import_module(f"vit_jax.cli.{verb}")
    assert module.main([*words, "--workdir=gs://bucket/run"]) == 2
    assert "gs://bucket/run: " in (error := capsys.readouterr().err)
    assert "local" in error
