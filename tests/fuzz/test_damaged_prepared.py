"""Fuzz of data sets in TFDS's layout: descriptions, labels and shards that are damaged are a data set or one error."""

import json
import shutil

import mutations
import numpy as np
import PIL.Image
import pytest

from vit_jax.data.formats.descriptions import open_directory
from vit_jax.data.formats.held_out import KEPT
from vit_jax.data.image.decode import decode
from vit_jax.data.image.encoded import CorruptImage
from vit_jax.data.open import open_source
from vit_jax.data.prepare import fingerprints
from vit_jax.data.prepare.pack import pack
from vit_jax.types import UserError


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A packed set of 12 training and 4 test images, with checksums."""
    root, rng = tmp_path_factory.mktemp("packed"), np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for i in range(count):
            place = root / "images" / split / f"class{i % 2}"
            place.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).save(place / f"{i}.png")
    pack(str(root / "images"), str(root / "good"))
    fingerprints.write(open_directory(str(root / "good")))
    return root / "good"


def read_all(folder):
    """Opens the set in both ways and decodes its images, as a run would."""
    for split in ("train", KEPT):
        source = open_source(str(folder), split)
        for index in range(len(source)):
            try:
                decode(source.read(index)[0])
            except CorruptImage:
                continue


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "vit_jax_checksums.json"])
def test_a_damaged_description_is_a_data_set_or_one_error(packed, tmp_path, name):
    shutil.copytree(packed, tmp_path / "bad")
    text = (packed / name).read_text()
    for number, rng in mutations.cases():
        damaged = (
            mutations.mutate(text.encode(), rng)
            if number % 4 == 0
            else json.dumps(mutations.mutate_json(json.loads(text), rng)).encode()
        )
        (tmp_path / "bad" / name).write_bytes(damaged)
        with mutations.judged(number, UserError):
            read_all(tmp_path / "bad")
            fingerprints.compare(open_directory(str(tmp_path / "bad")))


@pytest.mark.slow
def test_a_damaged_shard_or_its_labels_are_corrupt_images_or_one_error(packed, tmp_path):
    shutil.copytree(packed, tmp_path / "bad")
    names = ["packed-train.array_record-00000-of-00001", "vit_jax_labels.train.npy", "label.labels.txt"]
    for number, rng in mutations.cases():
        name = names[number % 3]
        content = (packed / name).read_bytes()
        (tmp_path / "bad" / name).write_bytes(mutations.mutate(content, rng))
        with mutations.judged(number, UserError):
            read_all(tmp_path / "bad")
        (tmp_path / "bad" / name).write_bytes(content)
