"""Where a model attends, from its attention weights: rollout to the input's patches, mean distances in pixels, and entropies.

Attention weights are those of `capture=("attention",)`: a sequence over layers of (b, heads, n, n), rows summing to 1, tokens in
the order class token, registers, patches. One layer is held in float64 at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vit_jax.types import UserError


def rollout(attention: Sequence[np.ndarray], class_token: bool = True, registers: int = 0) -> np.ndarray:
    """Attention of the last layer's output to the patches of the input, through all layers.

    Heads are averaged, the identity is added for the residual connection, rows are divided by their sum, and layers multiplied.

    Args:
      attention: sequence over layers of (b, heads, n, n).
      class_token: whether token 0 is the class token, whose row is returned; without one it is the mean over queries.
      registers: number of registers, which follow the class token.

    Returns:
      float64 (b, patches); shares of what went to the class token and the registers are missing from its sum of 1.

    Raises:
      UserError: the layers are none or of different shapes.

    Source: arXiv 2005.00928, section 3; arXiv 2010.11929, appendix D.7.
    """
    joint, first = joint_attention(attention), int(class_token) + registers
    return joint[:, 0, first:] if class_token else joint[:, registers:, first:].mean(axis=1)


def joint_attention(attention: Sequence[np.ndarray], gradients: Sequence[np.ndarray] | None = None) -> np.ndarray:
    """Attention through all layers, from each token of the last layer's output to each token of the input.

    Args:
      attention: sequence over layers of (b, heads, n, n).
      gradients: of a class's score with respect to `attention`, which then weigh the heads: a layer's mean over heads is that of
        the positive part of gradient times attention, and rows are not divided by their sum. None for plain rollout.

    Returns:
      float64 (b, n, n).

    Raises:
      UserError: the layers are none or of different shapes.

    Source: arXiv 2005.00928, section 3; with gradients arXiv 2103.15679, eqs. 5 and 6.
    """
    joint = None
    for layer, weights in enumerate(_checked(attention)):
        step = np.asarray(weights, np.float64)
        if gradients is not None:
            step = np.maximum(step * np.asarray(gradients[layer], np.float64), 0)
        step = step.mean(axis=1) + np.eye(step.shape[-1])  # b n n
        if gradients is None:
            step /= step.sum(axis=-1, keepdims=True)
        joint = step if joint is None else step @ joint
    assert joint is not None
    return joint


def entropy(attention: Sequence[np.ndarray]) -> np.ndarray:
    """Mean entropy of the attention of a query: 0 if it attends to a single token, log n if to all alike.

    Args:
      attention: sequence over layers of (b, heads, n, n).

    Returns:
      float64 (layers, heads): nats, a mean over queries (all tokens) and images.

    Raises:
      UserError: the layers are none or of different shapes.
    """
    means = []
    for weights in _checked(attention):
        x = np.asarray(weights, np.float64)
        means.append(-np.sum(x * np.log(x, out=np.zeros_like(x), where=x > 0), axis=-1).mean(axis=(0, 2)))
    return np.stack(means)


def attention_distance(
    attention: Sequence[np.ndarray],
    grid: tuple[int, int],
    patch_size: int | tuple[int, int],
    class_token: bool = True,
    registers: int = 0,
) -> np.ndarray:
    """Mean distance between a patch and those that it attends to: the size of a head's receptive field.

    Weights on the class token and the registers are left out, and those on patches divided by their sum. A query whose weights on
    patches are all 0 has no distance and does not count.

    Args:
      attention: sequence over layers of (b, heads, n, n).
      grid: (gh, gw) of the patches.
      patch_size: side of a patch, or (h, w), pixels.
      class_token, registers: see `rollout`.

    Returns:
      float64 (layers, heads): pixels between centres of patches, a mean over queries and images; nan for a head that attends to
      no patch.

    Raises:
      UserError: the layers are none, of different shapes, or of another grid.

    Source: arXiv 2010.11929, figure 7 (right) and appendix D.7.
    """
    sides = np.broadcast_to(patch_size, 2)
    y, x = np.meshgrid(*(np.arange(n) * side for n, side in zip(grid, sides, strict=True)), indexing="ij")
    places = np.stack([y.ravel(), x.ravel()], axis=1).astype(np.float64)  # n 2
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)  # n n
    first, means = int(class_token) + registers, []
    for weights in _checked(attention):
        if weights.shape[-1] - first != len(places):
            raise UserError(
                f"attention is over {weights.shape[-1]} tokens; a grid of {grid[0]}x{grid[1]} patches has "
                f"{len(places) + first} with {first} before them: correct grid, class_token or registers"
            )
        over = np.asarray(weights[..., first:, first:], np.float64)
        total = over.sum(axis=-1)  # b heads n
        counts = total > 0
        distance = np.divide((over * apart).sum(axis=-1), total, out=np.zeros_like(total), where=counts).sum(
            axis=(0, 2)
        )
        number = counts.sum(axis=(0, 2))
        means.append(np.divide(distance, number, out=np.full(len(number), np.nan), where=number > 0))
    return np.stack(means)


def _checked(attention: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    shapes = {tuple(weights.shape) for weights in attention}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 4 or shape[2] != shape[3]:
        found = ", ".join(str(tuple(weights.shape)) for weights in attention) or "no layer"
        raise UserError(
            f"expected attention of one shape (b, heads, n, n) in every layer, found {found}; axial models and models "
            "without attention have none"
        )
    return attention
