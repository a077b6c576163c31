"""Completion in a real bash: verbs, flags, their values, and the keys of the config on the line."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BASH = """
vit_jax() { "$PYTHON" -m vit_jax "$@"; }
eval "$(vit_jax completion)"
complete -p vit_jax
for COMP_LINE in "$@"; do
  COMP_POINT=${#COMP_LINE}
  _vit_jax
  (IFS=,; echo "${COMPREPLY[*]}")
done
"""
LINES = {
    "vit_jax tr": "train ",
    "vit_jax bench --mode=": "train,infer,data",
    "vit_jax train --config=quick": "quickstart",
    "vit_jax train --work": "--workdir=",
    "vit_jax plan --config=quickstart:pretrain --config.optim.end": "--config.optim.end_lr=",  # a default
    "vit_jax plan --config=quickstart:pretrain --config.evals.digits.ev": "--config.evals.digits.every=",
    "vit_jax nothing --x": "",
}


@pytest.mark.slow
def test_bash_completes_verbs_flags_values_and_config_keys():
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH, "bash", *LINES],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    registered, *found = done.stdout.splitlines()
    assert registered == "complete -o default -o nospace -F _vit_jax vit_jax"
    assert dict(zip(LINES, found, strict=True)) == LINES
