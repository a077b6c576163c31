"""`pip install .` into an empty folder: the wheel has verbs, configs and data files, and works outside the checkout."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OWN = """
import runpy
from vit_jax.config import find_file
def get_config(text=None):
    return runpy.run_path(find_file("quickstart")[0])["get_config"]("pretrain,smoke")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built of a copy: setuptools leaves a build folder beside what it builds."""
    source, to = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("vit_jax", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "wheel", "--no-deps", f"--wheel-dir={to}", source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = to.glob("vit_jax-*.whl")
    done = subprocess.run(
        [*pip, "install", "--no-deps", f"--target={to / 'site'}", file], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return file, to / "site"


def test_the_wheel_holds_every_module_config_and_data_file(wheel):
    with zipfile.ZipFile(wheel[0]) as opened:
        names = set(opened.namelist())
    listed = subprocess.run(["git", "ls-files", "vit_jax", "configs"], cwd=ROOT, capture_output=True, text=True)
    expected = {name.replace("configs/", "vit_jax/configs/", 1) for name in listed.stdout.split()}
    there = {name for name in expected if (ROOT / name).exists() or "/configs/" in name}
    assert {name for name in names if ".dist-info/" not in name} >= there
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"vit_jax"}


def test_verbs_run_from_the_wheel_alone(wheel, session_env, tmp_path):
    env = session_env | {"PYTHONPATH": str(wheel[1]), "TFDS_DATA_DIR": str(tmp_path / "data")}
    env["PATH"] = f"{wheel[1] / 'bin'}{os.pathsep}{env['PATH']}"

    def call(*words):
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    (tmp_path / "own.py").write_text(OWN)
    assert "quickstart" in call("vit_jax", "--help")
    where = call(sys.executable, "-c", "import vit_jax; print(vit_jax.__file__)")
    assert where.strip() == str(wheel[1] / "vit_jax" / "__init__.py")
    planned = json.loads(call("vit_jax", "plan", "--config=finetune:variant=B/16,dataset=imagenet2012", "--json"))
    assert planned["params"] == 86_859_496  # ViT-B/16 at 384 pixels with 1,000 classes
    small = (
        "--config.model.depth=1",
        "--config.model.width=12",
        "--config.model.mlp_dim=8",
        "--config.train.duration=2",
    )
    for spec in ("quickstart:pretrain,smoke", "own.py"):
        out = call("vit_jax", "train", f"--config={spec}", f"--workdir={spec[:3]}", *small)
        assert "done: step 2" in out
