"""Copies of test images among training images: found, and nothing else."""

import io

import cv2
import numpy as np
import PIL.Image
import pytest
from memory_source import MemorySource
from photographs import jpeg, parts

from vit_jax.data.dedup.duplicates import CORRELATION, PAIRS, correlate, correlation, find_candidates, merge
from vit_jax.data.dedup.hashing import hash_source, thumbnail


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
