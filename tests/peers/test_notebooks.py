"""Every notebook is executed in a kernel, as Jupyter does, each in under three minutes on two quiet cores."""

import os
import time
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "notebooks").glob("*.ipynb"))
MOST_S = 180
pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_notebook_runs_to_its_end(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    # Stands in for a download: a folder of timm's.
    monkeypatch.setenv("INIT", str(ROOT / "tests" / "golden" / "timm_token"))
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    began = time.monotonic()
    client = nbclient.NotebookClient(
        notebook, timeout=2 * MOST_S, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    print(f"{path.stem}: {time.monotonic() - began:.0f} s")
    assert time.monotonic() - began < MOST_S
    assert (tmp_path / "runs" / "notebooks").is_dir()
