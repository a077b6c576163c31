"""vit_jax dedup: from two folders of photographs to a list, a table and a page."""

import base64
import csv
import io
import os
import shutil
from pathlib import Path

import cv2
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from parsed_page import Page
from sklearn.datasets import load_sample_images

from vit_jax.cli import dedup
from vit_jax.data.dedup.exclusion import exclude
from vit_jax.data.dedup.search import open_named
from vit_jax.data.open import open_source

ROOT = Path(__file__).resolve().parents[3]
CHECKPOINT = str(ROOT / "tests" / "golden" / "timm_token")
COPIES = {"05": "0", "08": "1", "13": "2"}  # training file: test file


@pytest.fixture(autouse=True)
def same_process(monkeypatch):
    monkeypatch.setattr(dedup, "set_up_process", lambda: None)  # the process is the tests'


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """18 training images; 4 test images, of which three are parts of the same photographs: small, mirrored, dark."""
    root = tmp_path_factory.mktemp("photos")
    images = [
        im[r : r + 200, c : c + 200] for im in load_sample_images().images for r in (10, 215) for c in (0, 210, 420)
    ]
    images += [np.ascontiguousarray(np.rot90(image)) for image in images[:6]]
    tests = [cv2.resize(images[5], (90, 80)), images[8][:, ::-1], (images[13] * 0.7).astype(np.uint8), images[2][::-1]]
    for split, pictures, digits in (("train", images, 2), ("test", tests, 1)):
        (root / split / "any").mkdir(parents=True)
        for i, image in enumerate(pictures):
            PIL.Image.fromarray(np.ascontiguousarray(image)).save(
                root / split / "any" / f"{i:0{digits}}.jpg", quality=90
            )
    return root


def run(capsys, photos, to, *more):
    code = dedup.main([f"--train={photos}", f"--against={photos}", f"--to={to}", "--threads=2", *more])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out


def excluded_of(to):
    return sorted(Path(line).stem for line in (to / "exclude.txt").read_text().splitlines()[1:])


def test_copies_are_excluded_and_shown(capsys, photos, tmp_path):
    said = run(capsys, photos, tmp_path)
    assert "3 of 18 training images to exclude" in said
    assert excluded_of(tmp_path) == sorted(COPIES)
    rows = list(csv.DictReader((tmp_path / "pairs.csv").read_text().splitlines()))
    found = {Path(row["train"]).stem: Path(row["test"]).stem for row in rows if row["copy"] == "1"}
    assert found == COPIES
    page = Page((tmp_path / "pairs.html").read_text())
    assert len(page.images) == 2 * len(rows)
    assert "script" not in page.tags
    assert page.text.count("no copy") == len(rows) - 3
    first = PIL.Image.open(io.BytesIO(base64.b64decode(page.images[0]["src"].partition("base64,")[2])))
    assert max(first.size) == 200
    left = exclude(open_source(str(photos), "train[:50%]"), str(tmp_path / "exclude.txt"))
    assert not {Path(left.read(i)[2]).stem for i in range(len(left))} & set(COPIES)


def test_a_second_run_hashes_only_what_is_new(capsys, photos, tmp_path, monkeypatch):
    run(capsys, photos, tmp_path)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("hashes/*/*.npy")}
    assert len(files) == 2
    run(capsys, photos, tmp_path, f"--against={photos}@train[:3]")
    again = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("hashes/*/*.npy")}
    assert len(again) == 3
    assert files.items() <= again.items()
    assert len(excluded_of(tmp_path)) == len({*COPIES, *names_of(f"{photos}", "train[:3]")})


def names_of(dataset, split):
    source = open_source(dataset, split)
    return [Path(source.read(i)[2]).stem for i in range(len(source))]


@pytest.mark.slow
def test_a_checkpoint_confirms_by_its_representations(capsys, photos, tmp_path):
    """Cosines against those of the model itself, one image at a time."""
    from vit_jax.convert.load import load, resolution_of
    from vit_jax.data.image.crops import resize
    from vit_jax.data.image.decode import decode
    from vit_jax.models.build import make_forward

    run(capsys, photos, tmp_path, f"--model={CHECKPOINT}", "--batch=4", "--similarity=-1")
    rows = list(csv.DictReader((tmp_path / "pairs.csv").read_text().splitlines()))
    assert {Path(row["train"]).stem for row in rows} >= set(COPIES)
    loaded = load(CHECKPOINT, channels=3, stored_pixels=True)
    forward, size = make_forward(loaded.module), resolution_of(loaded)
    for row in rows[:2]:
        x = []
        for key in ("train", "test"):
            image = resize(decode((photos / row[key]).read_bytes()), size)
            x.append(np.asarray(forward(loaded.params, jnp.asarray(image[None])).pre_logits[0], np.float64))
        expected = x[0] @ x[1] / np.linalg.norm(x[0]) / np.linalg.norm(x[1])
        assert float(row["cosine"]) == pytest.approx(expected, abs=3e-3)
        assert row["copy"] == "1"


@pytest.mark.slow
def test_neighbours_are_found_without_hashes_and_kept_for_the_next_run(capsys, photos, tmp_path):
    options = (f"--model={CHECKPOINT}", "--neighbours", "--radius=-1", "--similarity=0.9999", "--batch=4")
    to = f"--against={photos}@train[:2]"
    run(capsys, photos, tmp_path, *options, to)
    assert set(names_of(str(photos), "train[:2]")) <= set(excluded_of(tmp_path))  # an image is like itself
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("embeddings/*/*.npy")}
    assert len(files) == 3
    run(capsys, photos, tmp_path, *options, to)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("embeddings/*/*.npy")} == files


def test_what_follows_the_last_at_is_the_split(photos):
    at = photos / "2@x"
    at.mkdir()
    (at / "photos").symlink_to(photos, target_is_directory=True)
    for text, name, split in (
        (f"{photos}@train[:50%]", str(photos), "train[:50%]"),
        (f"{photos}", str(photos), "test"),
        (f"{at}/photos", f"{at}/photos", "test"),
        (f"{at}/photos@train", f"{at}/photos", "train"),
    ):
        spec = open_named(text, "test", "").source.spec
        assert (spec.name, spec.split) == (name, split)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--neighbours"], "expected a --model"),
        (["--radius=-1"], "finds no candidates"),
        (["--train=nowhere/at/all"], "nowhere/at/all"),
    ],
)
def test_mistakes_are_said_before_anything_is_read(capsys, photos, tmp_path, more, message):
    assert dedup.main([f"--train={photos}", f"--against={photos}", f"--to={tmp_path / 'to'}", *more]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "to").exists()


def test_pairs_of_files_whose_names_are_no_utf_8_are_written_escaped(capsys, photos, tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    for split, files in (("train", {name: "05", "other.jpg": "06"}), ("test", {name: "05"})):
        (tmp_path / "photos" / split / "any").mkdir(parents=True)
        for target, source in files.items():
            shutil.copy(photos / "train" / "any" / f"{source}.jpg", tmp_path / "photos" / split / "any" / target)
    assert "1 of 2 training images to exclude" in run(capsys, tmp_path / "photos", tmp_path / "to")
    rows = list(csv.DictReader((tmp_path / "to" / "pairs.csv").read_text().splitlines()))
    assert [(row["train"], row["test"]) for row in rows] == [("train/any/caf\\xe9.jpg", "test/any/caf\\xe9.jpg")]
    assert "train: train/any/caf\\xe9.jpg" in Page((tmp_path / "to" / "pairs.html").read_text()).text
    # The list itself names the file as it is.
    assert (tmp_path / "to" / "exclude.txt").read_bytes().splitlines()[1:] == [b"train/any/caf\xe9.jpg"]
