"""`--help` of every program: it comes at once, its percent signs are single, and shared flags name their keys."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).resolve().parents[1] / "scripts").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_help_is_shown_with_single_percent_signs_and_the_keys_of_set(script):
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert "%%" not in done.stdout
    assert ("--set" in done.stdout) == ("num_heads=3" in done.stdout)
