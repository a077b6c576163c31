"""Perceptual hashes of images, and the cache of hashes of a data set."""

import io

import numpy as np
import PIL.Image
import pytest
from memory_source import MemorySource
from photographs import jpeg, parts

from vit_jax.data.dedup import hashing
from vit_jax.data.dedup.duplicates import find_candidates
from vit_jax.data.dedup.hashing import BLANK, CORRUPT, HASHES, READY, hash_image, hash_source
from vit_jax.types import UserError


@pytest.fixture(scope="module")
def encoded():
    return [jpeg(image) for image in parts()]


def bits(words):
    return np.unpackbits(np.asarray(words, np.uint64).view(np.uint8)).sum()


def test_the_first_word_is_the_signs_of_the_low_frequencies():
    # One cosine of order (1, 2): its own coefficient is the only positive one that is not rounding.
    y, x = np.meshgrid(np.arange(32) + 0.5, np.arange(32) + 0.5, indexing="ij")
    wave = np.cos(np.pi * y / 32) * np.cos(2 * np.pi * x / 32)
    image = np.repeat(np.round(128 + 100 * wave).astype(np.uint8)[..., None], 3, axis=2)
    basis = np.cos(np.pi * (np.arange(32)[None] + 0.5) * np.arange(16)[:, None] / 32)  # 16 frequencies, 32 pixels
    order = sorted(((u, v) for u in range(16) for v in range(16)), key=lambda f: (f[0] + f[1], f[0]))[1:65]
    coefficients = np.array([basis[u] @ image[..., 0].astype(float) @ basis[v] for u, v in order])
    strong = np.abs(coefficients) > 1
    assert order[np.argmax(coefficients)] == (1, 2)
    found = np.unpackbits(np.atleast_1d(hash_image(image)["plain"][0]).view(np.uint8)).astype(bool)
    assert np.array_equal(found[strong], coefficients[strong] > 0)


def test_the_second_word_says_where_it_gets_brighter():
    ramp = np.repeat(np.repeat(np.arange(0, 252, 7, dtype=np.uint8)[None, :, None], 36, 0), 3, 2)
    assert hash_image(ramp)["plain"][1] == np.uint64(2**64 - 1)
    assert hash_image(ramp[:, ::-1])["plain"][1] == 0
    assert hash_image(ramp)["mirror"][1] == 0


def test_the_mirrored_hash_is_the_hash_of_the_mirror_image():
    for image in parts()[::4]:
        one, other = hash_image(image), hash_image(np.ascontiguousarray(image[:, ::-1]))
        assert bits(one["mirror"] ^ other["plain"]) <= 2  # rounding


def test_one_colour_has_no_hash():
    assert hash_image(np.full((50, 40, 3), 9, np.uint8))["state"] == BLANK
    assert hash_image(parts()[0])["state"] == READY


def test_hashing_goes_on_where_it_was_interrupted_and_reads_nothing_twice(encoded, tmp_path, monkeypatch):
    train = MemorySource(encoded)
    monkeypatch.setattr(hashing, "PART", 8)

    def stop(done):
        if done == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hash_source(train, tmp_path, progress=stop)
    train.reads = 0
    whole = hash_source(train, tmp_path)
    assert train.reads == 8 + 14  # the probe, and the examples after the first 16
    assert np.array_equal(whole, np.array([hash_image(np.array(PIL.Image.open(io.BytesIO(x)))) for x in train.encoded]))
    part = sorted(tmp_path.rglob("*.npy"))[1]
    part.write_bytes(part.read_bytes()[:100])  # a full disk
    train.reads = 0
    assert np.array_equal(hash_source(train, tmp_path), whole)
    assert train.reads == 8 + 8


def test_other_images_of_the_same_name_are_hashed_anew(encoded, tmp_path):
    first = hash_source(MemorySource(encoded), tmp_path)
    other = hash_source(MemorySource(encoded[::-1]), tmp_path)
    assert np.array_equal(first[::-1], other)


def test_corrupt_and_blank_images_are_told_and_pair_with_nothing(tmp_path):
    gray = np.full((40, 40, 3), 128, np.uint8)
    source = MemorySource([jpeg(parts()[0]), jpeg(parts()[0])[:300], jpeg(gray), jpeg(gray)])
    hashes = hash_source(source, tmp_path)
    assert hashes["state"].tolist() == [READY, CORRUPT, BLANK, BLANK]
    pairs = find_candidates(hashes, hashes)
    assert pairs[["train", "test", "distance"]].tolist() == [(0, 0, 0)]


def test_a_cache_that_cannot_be_written_says_so(encoded, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="give another --to"):
        hash_source(MemorySource(encoded), tmp_path / "file")


def test_hashes_are_what_is_stored():
    assert HASHES.itemsize == 33
