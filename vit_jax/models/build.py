"""The table of models, their initial parameters, and the function from stored images to outputs.

Called by: run, tools.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_jax.models.vit import VisionTransformer
from vit_jax.types import Outputs

MODELS: dict[str, type[nn.Module]] = {
    "vit": VisionTransformer,
}

Forward = Callable[..., Outputs]


def normalize(images: jax.Array) -> jax.Array:
    """Maps uint8 pixels to float32 in [-1, 1], (x - 127.5) / 127.5, the range of all released weights."""
    return (images.astype(jnp.float32) - 127.5) / 127.5


def make_forward(model: nn.Module) -> Forward:
    """Binds a model to `forward(params, images, rng=None) -> Outputs` on stored (uint8) images.

    `rng` is the dropout key; without it the model runs in evaluation mode.
    """

    def forward(params: Any, images: jax.Array, rng: jax.Array | None = None) -> Outputs:
        rngs = None if rng is None else {"dropout": rng}
        return model.apply({"params": params}, normalize(images), train=rng is not None, rngs=rngs)  # type: ignore[return-value]

    return forward


def abstract_params(model: nn.Module, resolution: tuple[int, int], channels: int = 3) -> Any:
    """Shapes and dtypes of the parameters, computing nothing. `resolution` is (h, w) in pixels."""
    images = jax.ShapeDtypeStruct((1, *resolution, channels), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)["params"]


def init_params(model: nn.Module, rng: jax.Array, resolution: tuple[int, int], channels: int = 3) -> Any:
    """Draws the parameters, without running the model: the images' values are never needed.

    Args:
      model: the model.
      rng: key.
      resolution: (h, w) of the images it will see, pixels.
      channels: of the images.

    Returns:
      The parameter tree, float32, on the host's default device.
    """
    images = jax.ShapeDtypeStruct((1, *resolution, channels), jnp.float32)
    return model.lazy_init(rng, images)["params"]


def count_params(params: Any) -> int:
    """Number of parameters of a tree of arrays or shapes."""
    return sum(x.size for x in jax.tree.leaves(params))
