"""Packing by Apache Beam, run for real on its DirectRunner: `bash scripts/test.sh --beam`, in an environment of its own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vit_jax.data.open import open_source
from vit_jax.data.prepare import pack_beam
from vit_jax.data.prepare.pack import pack
from vit_jax.types import UserError

ROOT = Path(__file__).parents[2]
# Beam's and Google's own deprecations are not ours to mend.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def images(tmp_path):
    """Two classes; 20 images to train on, of which 2 are corrupt, and 6 to test."""
    root, rng = tmp_path / "images", np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 3)):
        for label in ("ant", "bee"):
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (20 + i, 30, 3), np.uint8)
                PIL.Image.fromarray(pixels).save(root / split / label / f"{i}.jpg")
    broken = root / "train" / "ant" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:80])
    (root / "train" / "bee" / "7.jpg").write_bytes(b"<html>")
    return root


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("shards", [0, 3])
def test_beam_writes_the_files_that_packing_here_writes(images, tmp_path, shards):
    here = pack(str(images), str(tmp_path / "here"), num_shards=shards)
    beam = pack(str(images), str(tmp_path / "beam"), num_shards=shards, run=pack_beam.make_run())
    assert beam.splits == here.splits == {"test": 6, "train": 18}
    assert [line.partition(":")[0] for line in beam.corrupt] == ["train/ant/3.jpg", "train/bee/7.jpg"]
    assert beam.corrupt == here.corrupt
    found, expected = files(tmp_path / "beam"), files(tmp_path / "here")
    assert len([name for name in expected if "packed-train" in name]) == max(shards, 1)
    assert found == expected
    source = open_source(str(tmp_path / "beam"), "train")
    assert (len(source), source.spec.class_names) == (18, ("ant", "bee"))


def test_worker_processes_of_beams_own_pack_too(images, tmp_path):
    options = "--runner=DirectRunner --direct_running_mode=multi_processing --direct_num_workers=2"
    command = [
        sys.executable,
        "-m",
        "vit_jax",
        "prepare",
        str(images),
        f"--to={tmp_path / 'beam'}",
        f"--beam={options}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert f"{images} packed: test 6, train 18; train on it with dataset={tmp_path / 'beam'}" in done.stdout
    assert "2 corrupt images were left out" in done.stdout
    pack(str(images), str(tmp_path / "here"))
    assert files(tmp_path / "beam") == files(tmp_path / "here")


def test_an_unknown_runner_is_refused_before_anything_is_read():
    with pytest.raises(UserError, match=r"--beam='--runner=Nowhere': Unexpected pipeline runner: Nowhere"):
        pack_beam.make_run("--runner=Nowhere")
    with pytest.raises(UserError, match="No closing quotation"):
        pack_beam.make_run("--runner='x")


def test_a_pipeline_that_fails_leaves_nothing(images, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(pack_beam, "_write", fail)
    with pytest.raises(RuntimeError, match="the disk is full"):
        pack(str(images), str(tmp_path / "beam"), run=pack_beam.make_run())
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
