"""Rollout and distances of attention against sums written out in float64, and by hand."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.insight import attention_distance, rollout
from vit_jax.insight.attention import entropy, joint_attention
from vit_jax.types import UserError

ROOT = Path(__file__).parents[2]


def weights(layers=3, b=2, heads=2, n=7, seed=0):
    """Rows that sum to 1."""
    rng = np.random.default_rng(seed)
    raw = rng.random((layers, b, heads, n, n))
    return list((raw / raw.sum(-1, keepdims=True)).astype(np.float32))


def rollout_of_one(attention, image):
    """By the definition, one element after the other."""
    n = attention[0].shape[-1]
    joint = np.eye(n)
    for layer in attention:
        step = np.zeros((n, n))
        for i in range(n):
            row = [np.mean([float(head[i, j]) for head in layer[image]]) + (i == j) for j in range(n)]
            step[i] = np.array(row) / sum(row)
        joint = step @ joint
    return joint


@pytest.mark.parametrize("registers", [0, 2])
def test_rollout_is_the_class_tokens_row_of_the_product_of_layers(registers):
    attention = weights()
    result = rollout(attention, registers=registers)
    assert result.shape == (2, 6 - registers)
    for image in range(2):
        np.testing.assert_allclose(result[image], rollout_of_one(attention, image)[0, 1 + registers :], atol=1e-6)


def test_without_a_class_token_rollout_is_the_mean_over_queries():
    attention = weights(n=6)
    result = rollout(attention, class_token=False)
    for image in range(2):
        np.testing.assert_allclose(result[image], rollout_of_one(attention, image).mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(result.sum(axis=1), 1)


def test_attention_to_itself_leaves_rollout_at_the_token():
    eye = np.broadcast_to(np.eye(5), (1, 2, 5, 5))
    assert rollout([eye] * 4).tolist() == [[0.0] * 4]


def test_with_gradients_heads_are_weighed_by_the_positive_part_and_rows_are_not_divided():
    attention, gradients = weights(), [w - 0.2 for w in weights(seed=1)]
    result = joint_attention(attention, gradients)
    for image in range(2):
        joint = np.eye(7)
        for a, g in zip(attention, gradients, strict=True):
            step = np.zeros((7, 7))
            for i, j in np.ndindex(7, 7):
                step[i, j] = np.mean([max(float(a[image, h, i, j]) * float(g[image, h, i, j]), 0) for h in range(2)])
            joint = joint + step @ joint  # arXiv 2103.15679, eq. 6
        np.testing.assert_allclose(result[image], joint, atol=1e-6)


def test_entropy_is_zero_for_one_token_and_the_logarithm_for_all():
    one, all_alike = np.broadcast_to(np.eye(4), (1, 1, 4, 4)), np.full((1, 1, 4, 4), 0.25)
    layer = np.concatenate([one, all_alike], axis=1)
    np.testing.assert_allclose(entropy([layer, layer]), [[0, np.log(4)]] * 2)
    by_hand = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    np.testing.assert_allclose(entropy([np.array([[[[0.25, 0.75], [1, 0]]]])]), [[by_hand / 2]])


def test_distances_by_hand():
    # Patches at (0, 0) and (0, 16): the first attends to both alike, the second to itself; half of it to the class token.
    layer = np.array([[[[1, 0, 0], [0.5, 0.25, 0.25], [0.5, 0, 0.5]]]])
    assert attention_distance([layer], (1, 2), 16).tolist() == [[4.0]]  # (8 + 0) / 2


def test_a_query_that_attends_to_no_patch_has_no_distance():
    # Of the first head, the second query attends to the class token alone; of the second head, both do.
    first, second = [[1, 0, 0], [0.5, 0.25, 0.25], [1, 0, 0]], [[1, 0, 0]] * 3
    result = attention_distance([np.array([[first, second]])], (1, 2), 16)
    assert result[0, 0] == 8
    assert np.isnan(result[0, 1])


def test_distances_are_sums_over_pairs_of_patches_on_a_grid_that_is_not_square():
    attention, grid, size = weights(n=7), (2, 3), (4, 6)
    result = attention_distance([jnp.asarray(layer) for layer in attention], grid, size)
    assert result.shape == (3, 2)
    centres = [(r * 4, c * 6) for r in range(2) for c in range(3)]
    for layer in range(3):
        for head in range(2):
            means = []
            for image in range(2):
                a = attention[layer][image, head, 1:, 1:].astype(float)
                for i, (y, x) in enumerate(centres):
                    far = [((y - v) ** 2 + (x - u) ** 2) ** 0.5 for v, u in centres]
                    means.append(sum(w * f for w, f in zip(a[i], far, strict=True)) / a[i].sum())
            assert result[layer, head] == pytest.approx(np.mean(means), rel=1e-6)


def test_uniform_attention_has_the_mean_distance_of_the_grid():
    uniform = np.full((1, 1, 4, 4), 0.25)
    expected = (0 + 1 + 1 + 2**0.5) / 4 * 8
    assert attention_distance([uniform], (2, 2), 8, class_token=False)[0, 0] == pytest.approx(expected)


def test_attention_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"over 7 tokens; a grid of 2x2 patches has 5"):
        attention_distance(weights(n=7), (2, 2), 16)
    with pytest.raises(UserError, match="found no layer"):
        rollout([])
    with pytest.raises(UserError, match=r"found \(2, 2, 7, 7\), \(2, 2, 6, 6\)"):
        rollout([*weights(layers=1), *weights(layers=1, n=6)])


@pytest.mark.slow
def test_the_documents_example_runs_on_a_released_model(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    source = re.search(r"```python\n(.*?)```", (ROOT / "docs/insight.md").read_text(), re.DOTALL)[1]
    names = {}
    exec(source, names)
    assert capsys.readouterr().out.startswith("(2, 4, 4) (2, 3) (4, 4, 4, 4) ")
    shares = names["seen"].reshape(2, -1).sum(axis=1)
    assert ((shares > 0) & (shares < 1)).all()  # the class token keeps the rest
    assert ((names["pixels"] > 0) & (names["pixels"] < 17)).all()
