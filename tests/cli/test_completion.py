"""Completion in a real bash, by argcomplete: verbs, flags, their values, and the keys of the config on the line."""

import subprocess
import sys
from pathlib import Path

import pytest

from vit_jax.cli.completion import main

ROOT = Path(__file__).resolve().parents[2]
# The function that bash would call on a tab: it asks the program, which is `python -m vit_jax` here.
BASH = """
eval "$(python -m vit_jax completion)"
complete -p vit_jax
for COMP_LINE in "$@"; do
  COMP_POINT=${#COMP_LINE} COMP_TYPE=9
  COMPREPLY=()
  _python_argcomplete vit_jax
  (IFS=,; echo "${COMPREPLY[*]}")
done
"""
LINES = {
    "vit_jax tr": "train",
    "vit_jax bench --mode=": "train,infer,data",
    "vit_jax train --config=quick": "quickstart",
    "vit_jax train --work": "--workdir",
    "vit_jax plan --config=quickstart:pretrain --config.optim.end": "--config.optim.end_lr=",  # a default
    "vit_jax plan --config=quickstart:pretrain --config.evals.digits.ev": "--config.evals.digits.every=",
    "vit_jax nothing --x": "",
}


@pytest.mark.slow
def test_bash_completes_verbs_flags_values_and_config_keys(tmp_path):
    program = tmp_path / "vit_jax"
    program.write_text(f'#!/bin/bash\nexec "{sys.executable}" -m vit_jax "$@"\n')
    program.chmod(0o755)
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH.replace("python", sys.executable, 1), "bash", *LINES],
        cwd=ROOT,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "_python_argcomplete vit_jax" in done.stdout
    _registered, *found = done.stdout.splitlines()
    assert {line: answer.strip() for line, answer in zip(LINES, found, strict=True)} == LINES
    assert not [line for line in done.stderr.splitlines() if "compopt" not in line]  # only a tab may call compopt


def test_every_shell_has_its_own_function(capsys):
    for shell, words in {"zsh": "#compdef vit_jax", "fish": "complete --command vit_jax"}.items():
        assert main([f"--shell={shell}"]) == 0
        assert words in capsys.readouterr().out.replace("'", "")
