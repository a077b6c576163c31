"""Copies of test images among training images: found, and nothing else."""

import io

import cv2
import numpy as np
import PIL.Image
import pytest
from photographs import jpeg, parts

from vit_jax.data.dedup import hashing
from vit_jax.data.dedup.duplicates import CORRELATION, PAIRS, correlate, correlation, find_candidates, merge
from vit_jax.data.dedup.hashing import BLANK, CORRUPT, HASHES, READY, hash_image, hash_source, thumbnail
from vit_jax.data.source import Source
from vit_jax.targets import ClassId
from vit_jax.types import DatasetSpec, UserError


class MemorySource(Source):
    """Encoded images; counts what is read."""

    def __init__(self, encoded, name="memory"):
        self.spec = DatasetSpec(name, "train", len(encoded), ClassId(1), ("any",), (None, None, 3))
        self.encoded, self.reads = encoded, 0

    def __len__(self):
        return len(self.encoded)

    def read(self, index):
        self.reads += 1
        return self.encoded[index], 0, f"#{index}"


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


def alter(image, kind):
    if kind == "jpeg":
        return PIL.Image.open(io.BytesIO(jpeg(image, 30)))
    if kind == "small":
        return cv2.resize(image, (48, 40), interpolation=cv2.INTER_AREA)
    if kind == "mirror":
        return image[:, ::-1]
    if kind == "dark":
        return (image * 0.6).astype(np.uint8)
    return image[:125, :125]  # 95% of the area


KINDS = ("jpeg", "small", "mirror", "dark", "crop")


@pytest.fixture(scope="module")
def planted():
    """30 training images, of which 6, 7, 12, 18 and 25 are altered test images; and (training, test) of each copy."""
    images = parts()
    copies = {row: KINDS[k] for k, row in enumerate((6, 7, 12, 18, 25))}
    tests = [images[row] for row in copies] + [image[::-1] for image in images[20:24]]
    train = [np.ascontiguousarray(alter(im, copies[i])) if i in copies else im for i, im in enumerate(images)]
    return MemorySource([jpeg(x) for x in train]), MemorySource([jpeg(x) for x in tests], "test"), list(copies)


def test_planted_copies_are_found_and_the_others_are_not(planted, tmp_path):
    train, test, rows = planted
    hashes = [hash_source(source, tmp_path) for source in (train, test)]
    pairs = find_candidates(*hashes)
    pairs["correlation"] = correlate(train, test, pairs)
    found = pairs[pairs["correlation"] >= CORRELATION]
    assert list(zip(found["train"].tolist(), found["test"].tolist(), strict=True)) == list(
        zip(rows, range(5), strict=True)
    )


def test_hashing_goes_on_where_it_was_interrupted_and_reads_nothing_twice(planted, tmp_path, monkeypatch):
    train = MemorySource(planted[0].encoded)
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


def test_other_images_of_the_same_name_are_hashed_anew(planted, tmp_path):
    first = hash_source(MemorySource(planted[0].encoded), tmp_path)
    other = hash_source(MemorySource(planted[0].encoded[::-1]), tmp_path)
    assert np.array_equal(first[::-1], other)


def test_corrupt_and_blank_images_are_told_and_pair_with_nothing(tmp_path):
    gray = np.full((40, 40, 3), 128, np.uint8)
    source = MemorySource([jpeg(parts()[0]), jpeg(parts()[0])[:300], jpeg(gray), jpeg(gray)])
    hashes = hash_source(source, tmp_path)
    assert hashes["state"].tolist() == [READY, CORRUPT, BLANK, BLANK]
    pairs = find_candidates(hashes, hashes)
    assert pairs[["train", "test", "distance"]].tolist() == [(0, 0, 0)]


def test_a_cache_that_cannot_be_written_says_so(planted, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="give another --to"):
        hash_source(planted[0], tmp_path / "file")


def test_a_pair_found_twice_is_one_with_its_least_distance_and_known_cosine():
    rows = [(5, 1, 9, 0, 0), (2, 8, 3, 0, 0), (5, 1, 4, 0, 0), (5, 1, 255, 0, 0.9)]
    merged = merge([np.array(rows[:2], PAIRS), np.array(rows[2:], PAIRS)])
    assert merged[["train", "test", "distance"]].tolist() == [(2, 8, 3), (5, 1, 4)]
    assert np.isnan(merged["cosine"][0])
    assert merged["cosine"][1] == np.float32(0.9)


def test_correlation_is_numpys_on_the_detail():
    a, b = thumbnail(parts()[3]), thumbnail(parts()[17])
    detail = []
    for image in (a, b, b[:, ::-1]):
        gray = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float64)
        detail.append((gray - cv2.GaussianBlur(gray, (0, 0), 4.0)).ravel())
    expected = max(np.corrcoef(detail[0], other)[0, 1] for other in detail[1:])
    assert expected < CORRELATION
    assert correlation(a, b) <= CORRELATION
    assert correlation(a, a) == pytest.approx(1, abs=1e-5)
    if expected < 0.1:  # below which no alignment is tried
        assert correlation(a, b) == pytest.approx(expected, abs=1e-5)


def test_a_part_of_a_picture_is_laid_on_it_before_it_is_compared():
    image = parts()[6]
    crop = image[:121, :121]  # 90% of the area
    assert correlation(thumbnail(image), thumbnail(crop)) > 0.9
    half = image[:64, :64]
    assert correlation(thumbnail(image), thumbnail(half)) < CORRELATION


def test_hashes_are_what_is_stored():
    assert HASHES.itemsize == 33
