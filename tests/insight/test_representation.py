"""A checkpoint as a measure of likeness: images embedded in order, pairs scored, and parts kept for later runs."""

import io
import types

import numpy as np
import PIL.Image
import pytest
from memory_source import MemorySource

from vit_jax.data.dedup import duplicates, hashing
from vit_jax.data.image.recipes import make_transform
from vit_jax.insight.representation import Representation


def png(colour):
    file = io.BytesIO()
    PIL.Image.new("RGB", (8, 6), colour).save(file, "PNG")
    return file.getvalue()


RED, GREEN, BLUE, ORANGE = (png(colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 51, 0)))


class Colours:
    """Represents an image by its mean colour, scaled to length 1; counts the images, padding included."""

    def __init__(self):
        self.seen = 0

    def __call__(self, batches):
        rows = []
        for batch in batches:
            self.seen += len(batch.image)
            x = batch.image.mean((1, 2)) * batch.mask[:, None]
            rows.append(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))
        return np.concatenate(rows).astype(np.float16)


def representation(cache, identity=("model",), batch_size=4):
    return Representation(Colours(), make_transform("eval", (4, 4)), cache, identity, batch_size, threads=1)


def named(images, text="a folder:train"):
    return types.SimpleNamespace(text=text, source=MemorySource(images))


def test_chosen_images_are_embedded_in_the_order_asked_for_without_padding(tmp_path):
    found = representation(tmp_path).embed(MemorySource([RED, GREEN, BLUE, RED]), np.array([3, 1, 2, 2, 0]))
    assert found.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [1, 0, 0]]


def test_an_image_that_does_not_decode_is_like_nothing(tmp_path):
    source = MemorySource([RED, b"no image", RED])
    assert representation(tmp_path).embed(source, np.arange(3)).tolist() == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]
    pairs = np.zeros(2, duplicates.PAIRS)
    pairs["train"], pairs["test"] = (0, 1), (2, 2)
    assert representation(tmp_path).cosines(source, source, pairs).tolist() == [1, 0]


def test_pairs_have_the_cosines_of_their_images(tmp_path):
    pairs = np.zeros(4, duplicates.PAIRS)
    pairs["train"], pairs["test"] = (0, 0, 1, 1), (1, 2, 0, 2)
    found = representation(tmp_path).cosines(MemorySource([RED, GREEN]), MemorySource([GREEN, RED, ORANGE]), pairs)
    # Orange is 5 parts of red and 1 of green: cosines of 5 and of 1 by the root of 26.
    assert found == pytest.approx([1, 5 / 26**0.5, 1, 1 / 26**0.5], abs=1e-3)


def test_neighbours_are_all_pairs_that_are_near_enough_with_their_places_in_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, "PART", 2)  # the training set is embedded in three parts
    train, tests = named([RED, GREEN, BLUE, GREEN, ORANGE]), [named([GREEN, RED], "b"), named([BLUE], "c")]
    first, second = representation(tmp_path).neighbours(train, tests, 0.9)
    assert sorted(zip(first["train"].tolist(), first["test"].tolist(), strict=True)) == [(0, 1), (1, 0), (3, 0), (4, 1)]
    assert [(int(row["train"]), int(row["test"])) for row in second] == [(2, 0)]
    assert first["cosine"][list(first["train"]).index(4)] == pytest.approx(5 / 26**0.5, abs=1e-3)
    assert set(first["distance"]) == {duplicates.UNKNOWN_DISTANCE}
    (none,) = representation(tmp_path).neighbours(train, [named([png((9, 9, 9))], "d")], 0.9)
    assert len(none) == 0


def test_parts_are_kept_for_the_same_images_and_the_same_model_only(tmp_path):
    train, test = [RED, GREEN], [GREEN]

    def seen(train, test, identity):
        model = representation(tmp_path, identity)
        model.neighbours(named(train), [named(test, "b")], 0.9)
        return model.embedder.seen > 0

    assert seen(train, test, ("model", "a fingerprint", "raw"))
    assert not seen(train, test, ("model", "a fingerprint", "raw"))
    assert seen(train, test, ("model", "another fingerprint", "raw"))
    assert seen(train, test, ("model", "a fingerprint", "average"))
    assert seen([RED, BLUE], test, ("model", "a fingerprint", "raw"))  # other images of the same name
