"""What `bash scripts/test.sh` installs beside the requirements: this checkout, found from any folder."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_package_is_found_from_any_folder(tmp_path):
    code = "import vit_jax; from vit_jax import load_model; print(vit_jax.__file__, load_model.__module__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"install this checkout first: pip install -e .\n{done.stderr}"
    assert done.stdout.split() == [str(ROOT / "vit_jax" / "__init__.py"), "vit_jax.convert.load"]
