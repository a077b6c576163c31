"""Likeness by representation: numpy's cosines, the nearest rows, and parts that are not computed twice."""

import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.insight.similarity import BLOCK, Embedder, embed_parts, find_nearest, pair_cosines
from vit_jax.types import Batch, Outputs


def unit(rng, n, d=6):
    x = rng.standard_normal((n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def forward(params, images):
    return Outputs(None, None, images.astype(jnp.float32).mean(axis=(1, 2)) * params[None], None)


def test_representations_have_length_one_and_zeros_where_no_image_was():
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3), np.uint8)
    mask = np.array([1, 1, 0, 1], np.float32)
    batches = [Batch(images[i : i + 2], np.zeros(2, np.int32), mask[i : i + 2]) for i in (0, 2)]
    weights = np.array([1.0, 2.0, 3.0], np.float32)
    found = Embedder(forward, jnp.asarray(weights))(iter(batches))
    expected = images.mean(axis=(1, 2)) * weights
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True) * mask[:, None]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("n", [5, BLOCK, BLOCK + 3])
def test_the_nearest_rows_are_those_of_a_whole_matrix_product(n):
    rng = np.random.default_rng(n)
    x, y = unit(rng, n), unit(rng, 40)
    cosine = x @ y.T
    i, j, found = find_nearest(x, y, threshold=0.8, k=2)
    expected = []
    for row in range(n):
        best = np.argsort(-cosine[row])[:2]
        expected += [(row, int(column)) for column in best if cosine[row, column] >= 0.8]
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == expected
    np.testing.assert_allclose(found, cosine[i, j], atol=1e-6)


@pytest.mark.parametrize("part", [1, 2, 100])
def test_pairs_are_scored_as_one_by_one_and_no_example_is_embedded_twice(part):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((9, 5)), rng.standard_normal((7, 5))
    left, right = np.array([0, 0, 2, 3, 3, 8]), np.array([6, 1, 6, 0, 4, 1])
    asked = {"left": [], "right": []}

    def embed(side, rows):
        return lambda some: asked[side].extend(some.tolist()) or rows[some]

    found = pair_cosines(left, right, embed("left", x), embed("right", y), part=part)
    expected = [x[i] @ y[j] / (np.linalg.norm(x[i]) * np.linalg.norm(y[j])) for i, j in zip(left, right, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert asked == {"left": [0, 2, 3, 8], "right": [0, 1, 4, 6]}


def test_no_pairs_embed_nothing():
    none = np.zeros(0, np.int64)
    assert pair_cosines(none, none, pytest.fail, pytest.fail, part=4).shape == (0,)


def test_an_image_is_like_itself_also_after_storage_in_half_precision():
    x = unit(np.random.default_rng(0), 50, 384).astype(np.float16)
    i, j, cosine = find_nearest(x, x, threshold=0.99999, k=1)
    assert i.tolist() == j.tolist() == list(range(50))
    np.testing.assert_allclose(cosine, 1, atol=1e-6)


def test_fewer_rows_than_asked_for_and_none_near_enough():
    x = np.eye(3, dtype=np.float32)
    assert find_nearest(x, x[:1], threshold=0.5, k=3)[0].tolist() == [0]
    assert find_nearest(x, -x[:1], threshold=0.5)[0].tolist() == []


def test_parts_are_read_back_and_only_the_missing_computed(tmp_path):
    asked = []

    def embed(start, stop):
        asked.append((start, stop))
        return np.arange(start, stop, dtype=np.float16)[:, None]

    def run():
        return np.concatenate([part for _, part in embed_parts(10, 4, tmp_path, embed)])[:, 0].tolist()

    assert run() == list(range(10))
    second = sorted(tmp_path.glob("*.npy"))[1]
    second.write_bytes(second.read_bytes()[:20])
    assert run() == list(range(10))
    assert asked == [(0, 4), (4, 8), (8, 10), (4, 8)]
