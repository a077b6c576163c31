"""Similarity of positions and of layers, against float64 sums and what holds for any data."""

import tracemalloc

import numpy as np
import pytest

from vit_jax.insight import cka, layers, position_similarity
from vit_jax.insight.layers import layer_similarity, offset_similarity
from vit_jax.models.positions import sincos_2d
from vit_jax.types import UserError


def test_positions_are_compared_by_cosine_and_the_class_tokens_entry_is_left_out():
    table = np.random.default_rng(0).standard_normal((1, 7, 5)).astype(np.float32)
    result = position_similarity(table, (2, 3))
    assert result.shape == (2, 3, 2, 3)
    a, b = table[0, 1 + 4].astype(float), table[0, 1 + 2].astype(float)  # (1, 1) and (0, 2)
    assert result[1, 1, 0, 2] == pytest.approx(a @ b / (a @ a * (b @ b)) ** 0.5)
    np.testing.assert_allclose(result.reshape(6, 6).diagonal(), 1)


def test_fixed_positions_resemble_their_neighbours_most():
    similar = position_similarity(sincos_2d((5, 5), 64), (5, 5))[2, 2]
    assert similar[2, 2] == pytest.approx(1)
    assert similar[2, 1] == pytest.approx(similar[2, 3])
    assert similar[2, 3] > similar[2, 4] > similar[0, 4]


def test_a_zero_embedding_resembles_nothing_and_a_small_table_is_refused():
    assert position_similarity(np.zeros((4, 2)), (2, 2)).tolist() == np.zeros((2, 2, 2, 2)).tolist()
    with pytest.raises(UserError, match="has 3 positions; a grid of 2x2 needs 4"):
        position_similarity(np.ones((3, 2)), (2, 2))


def gram_cka(x, y):
    """From the examples' kernels: HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))."""
    n = len(x)
    h = np.eye(n) - 1 / n
    k, other = h @ (x @ x.T) @ h, h @ (y @ y.T) @ h
    return (k * other).sum() / np.sqrt((k * k).sum() * (other * other).sum())


def test_cka_is_the_kernels_definition():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 6))
    y = x @ rng.standard_normal((6, 9)) + 0.5 * rng.standard_normal((20, 9)) + 3
    assert cka(x, y) == pytest.approx(gram_cka(x, y))
    assert cka(x.astype(np.float32), y.astype(np.float32)) == pytest.approx(gram_cka(x, y), abs=1e-5)


def test_cka_ignores_rotation_shift_and_scale():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((30, 5))
    rotation = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    assert cka(x, 3 * x @ rotation + 7) == pytest.approx(1)


def test_features_of_other_examples_or_without_variation_are_refused():
    with pytest.raises(UserError, match=r"found \(3, 2\) and \(4, 2\)"):
        cka(np.ones((3, 2)), np.ones((4, 2)))
    with pytest.raises(UserError, match="all examples are equal"):
        cka(np.ones((3, 2)), np.ones((3, 2)))


def test_similarities_of_all_layers_are_those_of_every_two():
    rng = np.random.default_rng(2)
    xs, ys = [rng.standard_normal((12, d)).astype(np.float32) for d in (5, 30)], [rng.standard_normal((12, 7))]
    result = layer_similarity(xs, ys)
    assert result.shape == (2, 1)
    np.testing.assert_allclose(result, [[cka(x, y) for y in ys] for x in xs], rtol=1e-6)
    assert np.isnan(layer_similarity([np.ones((3, 2))], [np.ones((3, 2))])).all()
    with pytest.raises(UserError, match=r"found \(3, 2\), \(4, 2\)"):
        layer_similarity([np.ones((3, 2))], [np.ones((4, 2))])


def test_similarities_do_not_depend_on_how_many_rows_of_kernels_are_in_memory(monkeypatch):
    rng = np.random.default_rng(3)
    xs, ys = [rng.standard_normal((12, d)) for d in (5, 30)], [rng.standard_normal((12, 7))]
    monkeypatch.setattr(layers, "NUMBERS", 5 * 12 * 3)  # five rows of the kernels of three layers
    np.testing.assert_allclose(layer_similarity(xs, ys), [[gram_cka(x, y) for y in ys] for x in xs], rtol=1e-12)
    np.testing.assert_allclose(layer_similarity(xs, xs), [[gram_cka(x, y) for y in xs] for x in xs], rtol=1e-12)
    many = [rng.standard_normal((600, 3)) for _ in range(2)]  # a kernel is 2.9 MB
    tracemalloc.start()
    try:
        layer_similarity(many, many)
        assert tracemalloc.get_traced_memory()[1] < 5e5
    finally:
        tracemalloc.stop()


def test_offsets_are_compared_with_that_of_a_patch_to_itself():
    table = np.array([[1.0, 0], [3, 4], [0, 0]])  # offsets -1, 0, 1
    index = np.array([[1, 0], [2, 1]])
    assert offset_similarity(table, index, (1, 2)).reshape(2, 2).tolist() == [[1, 0.6], [0, 1]]
