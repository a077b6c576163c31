"""Checksums of a prepared data set: what was damaged, replaced or decoded otherwise since is found."""

import io
import json
import shutil
from pathlib import Path

import generated
import numpy as np
import PIL.Image
import pytest

from vit_jax.data.prepare import fingerprints, prepare
from vit_jax.data.prepare.check import KNOWN, check


def jpeg(value, **options):
    file = io.BytesIO()
    PIL.Image.fromarray(np.full((32, 32, 3), value, np.uint8)).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.fixture
def flat(tmp_path, monkeypatch):
    """dtd with flat JPEGs of level 10 * index, and how to prepare it again with others."""
    monkeypatch.setitem(KNOWN, "dtd", KNOWN["dtd"]._replace(splits={"train": 8}))

    def make(folder, level=lambda index: 10 * index, count=8):
        def change(example, split, index):
            example.update(image=jpeg(level(index)), label=index, file_name=str(index))

        return generated.prepare("dtd", tmp_path / folder, {"train": count}, change)

    return make


def test_what_was_prepared_elsewhere_has_no_checksums_until_they_are_recorded(flat, tmp_path):
    flat("a")
    assert check("dtd", str(tmp_path / "a")).detail.endswith("5 images decoded, no checksums recorded (--record does)")
    assert check("dtd", str(tmp_path / "a"), record=True).detail.endswith("5 images decoded, checksums as recorded")
    assert check("dtd", str(tmp_path / "a")).state == "ready"


def test_an_image_that_was_replaced_is_found(flat, tmp_path):
    recorded = fingerprints.write(flat("a"))
    flat("b", lambda index: 10 * index + 9)
    shutil.copy(recorded, tmp_path / "b" / "dtd" / "3.0.1")
    finding = check("dtd", str(tmp_path / "b"))
    assert finding.state == "wrong"
    assert [f"example {i} is not the one" in finding.detail for i in range(8)] == [
        i in (0, 1, 3, 5, 7) for i in range(8)
    ]


@pytest.mark.parametrize(("shift", "state"), [(1.9, "ready"), (2.1, "wrong")])
def test_decoders_of_jpeg_may_differ_by_a_level_or_two_and_no_more(shift, state, flat, tmp_path):
    path = Path(fingerprints.write(flat("a")))
    content = json.loads(path.read_text())
    for sample in content["splits"]["train"]["samples"]:
        sample["mean"][1] += shift
        sample["pixels"] = "another decoder's"
    path.write_text(json.dumps(content))
    finding = check("dtd", str(tmp_path / "a"))
    assert finding.state == state
    assert ("decodes to mean" in finding.detail) == (state == "wrong")


def test_the_pixels_of_a_png_have_to_be_exact(tfds_dir, tmp_path):
    shutil.copytree(Path(tfds_dir) / "digits", tmp_path / "digits")
    path = tmp_path / "digits" / "1.0.0" / fingerprints.FILE
    content = json.loads(path.read_text())
    content["splits"]["test"]["samples"][2]["pixels"] = "0"
    path.write_text(json.dumps(content))
    assert "test: example 179 decodes to other pixels than recorded" in check("digits", str(tmp_path)).detail


def test_published_content_is_known_without_a_record(tfds_dir, tmp_path, monkeypatch):
    shutil.copytree(Path(tfds_dir) / "digits", tmp_path / "digits")
    (tmp_path / "digits" / "1.0.0" / fingerprints.FILE).unlink()
    assert check("digits", str(tmp_path)).detail.endswith("10 images decoded, checksums as published")
    from vit_jax.data.prepare import digits

    monkeypatch.setattr(digits.Digits, "_generate_examples", inverted)
    prepare.prepare("digits", data_dir=str(tmp_path / "other"))
    finding = check("digits", str(tmp_path / "other"))
    assert finding.state == "wrong"
    assert "train: the images or labels are not those of the published digits/1.0.0" in finding.detail


def inverted(self, images, labels, indices):
    for index in indices:
        image = PIL.Image.fromarray(np.uint8(255 - images[index]))
        file = io.BytesIO()
        image.save(file, "PNG")
        yield int(index), {"image": file.getvalue(), "label": int(labels[index])}


def test_a_shard_that_is_cut_missing_or_short_is_found(flat, tmp_path):
    builder = flat("a")
    fingerprints.write(builder)
    (shard,) = Path(builder.data_dir).glob("*.array_record*")
    whole = shard.read_bytes()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (short,) = Path(flat("c", count=7).data_dir).glob("*.array_record*")
    shard.write_bytes(short.read_bytes())
    assert "it holds 7 examples, expected 8" in check("dtd", str(tmp_path / "a")).detail
    shard.write_bytes(whole[: len(whole) // 2])
    assert "is damaged" in check("dtd", str(tmp_path / "a")).detail
    shard.unlink()
    assert "is missing; dataset_info.json counts 8" in check("dtd", str(tmp_path / "a")).detail
    (Path(builder.data_dir) / fingerprints.FILE).write_text("{")
    shard.write_bytes(whole)
    assert "write it again with --check --record" in check("dtd", str(tmp_path / "a")).detail
