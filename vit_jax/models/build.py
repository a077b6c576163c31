"""The table of models, their initial parameters, and the function from stored images to outputs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vit_jax.models.base import ImageModel
from vit_jax.models.masked import MaskedAutoencoder, MaskedViT
from vit_jax.models.mixer import MlpMixer
from vit_jax.models.resnet import ResNet
from vit_jax.models.vit import VisionTransformer
from vit_jax.types import Outputs

MODELS: dict[str, type[ImageModel]] = {
    "vit": VisionTransformer,
    "masked": MaskedViT,
    "mae": MaskedAutoencoder,
    "mixer": MlpMixer,
    "resnet": ResNet,
}

Forward = Callable[..., Outputs]

LOOPED = re.compile(r"(.*Transformer/)encoderblock_(\d+)/(.*)")


def normalize(images: jax.Array) -> jax.Array:
    """Maps uint8 pixels to float32 in [-1, 1], (x - 127.5) / 127.5, the range of all released weights."""
    return (images.astype(jnp.float32) - 127.5) / 127.5


def make_forward(model: ImageModel) -> Forward:
    """Binds a model to `forward(params, images, *, train=False, rng=None, capture=()) -> Outputs` on stored (uint8) images.

    `train` says whether the model is training (dropout acts), `rng` is the key of everything that the model draws, in training or
    not, and `capture` names the inner values that `Outputs` carries; it is passed to the model only if it is not empty. Further
    arguments go to the model as they are: the patches that an objective hides.
    """

    def forward(
        params: Any,
        images: jax.Array,
        *,
        train: bool = False,
        rng: jax.Array | None = None,
        capture: tuple[str, ...] = (),
        **drawn: jax.Array,
    ) -> Outputs:
        rngs = None if rng is None else {"dropout": rng}
        asked: dict[str, Any] = {"capture": capture} if capture else {}
        return model.apply({"params": params}, normalize(images), train=train, rngs=rngs, **(asked | drawn))  # type: ignore[return-value]

    return forward


def abstract_params(model: ImageModel, resolution: tuple[int, int], channels: int = 3) -> Any:
    """Shapes and dtypes of the parameters, without computing them. `resolution` is (h, w) in pixels."""
    return abstract_model(model, resolution, channels)[1]


def abstract_model(model: ImageModel, resolution: tuple[int, int], channels: int = 3) -> tuple[Outputs, Any]:
    """Shapes and dtypes of the outputs for one image, and of the parameters, from one trace of the model."""
    images = jax.ShapeDtypeStruct((1, *resolution, channels), jnp.float32)
    outputs, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    return outputs, variables["params"]


def init_params(model: ImageModel, rng: jax.Array, resolution: tuple[int, int], channels: int = 3) -> Any:
    """Draws the parameters without running the model: the images' values are never needed.

    Args:
      model: the model.
      rng: key.
      resolution: (h, w) of the model's images, pixels.
      channels: channels of the images.

    Returns:
      The parameter tree, float32, in the host's memory: an accelerator receives only its shards of them.
    """
    images = jax.ShapeDtypeStruct((1, *resolution, channels), jnp.float32)
    with _on_the_host():
        if not model.scan:
            return model.lazy_init(rng, images)["params"]
        # Draw the layers as a loop does and stack them: a scanned model starts with the values of the looped one.
        looped = flatten_dict(model.clone(scan=False).lazy_init(rng, images)["params"], sep="/")
    return unflatten_dict(stack_layers({name: np.asarray(x) for name, x in looped.items()}), sep="/")


def _on_the_host() -> contextlib.AbstractContextManager[Any]:
    """Makes JAX compute on the host's CPU; on an accelerator where JAX_PLATFORMS leaves the CPU out."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return contextlib.nullcontext()


def stack_layers(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Stacks the parameters of `encoderblock_0`, ... into `encoderblock`, as a scanned model has them; others stay."""
    stacks: dict[str, list[tuple[int, np.ndarray]]] = {}
    out = {}
    for name, value in tensors.items():
        match = LOOPED.fullmatch(name)
        if match:
            stacks.setdefault(f"{match[1]}encoderblock/{match[3]}", []).append((int(match[2]), value))
        else:
            out[name] = value
    return out | {name: np.stack([x for _, x in sorted(found, key=lambda f: f[0])]) for name, found in stacks.items()}


def unstack_layers(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `stack_layers`; a tree without stacked parameters is returned unchanged."""
    out = {}
    for name, value in tensors.items():
        before, stacked, after = name.partition("Transformer/encoderblock/")
        if stacked and np.ndim(value):
            layers = {f"{before}Transformer/encoderblock_{i}/{after}": layer for i, layer in enumerate(value)}
            out.update(layers)
        else:
            out[name] = value
    return out


def relayout(tree: Any, like: Any) -> Any:
    """Stacks or unstacks the encoder layers in a tree of arrays, to match another tree.

    Args:
      tree: parameters, or anything that contains trees of them: an optimizer's state, a `TrainState`.
      like: a tree with the wanted layout; its leaves have shapes and shardings.

    Returns:
      A tree like `like`, with its shardings and the values of `tree`.
    """
    values = {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}

    def find(path: tuple[Any, ...], leaf: Any) -> Any:
        name = jax.tree_util.keystr(path)
        if name in values:
            value = values[name]
        elif "['encoderblock']" in name:
            layers = [name.replace("['encoderblock']", f"['encoderblock_{i}']") for i in range(leaf.shape[0])]
            # Layers that `optim.freeze` names have no state of an optimizer; in a stack they have zeros.
            none = jnp.zeros(leaf.shape[1:], leaf.dtype)
            assert any(layer in values for layer in layers), name
            value = jnp.stack([values.get(layer, none) for layer in layers])
        else:
            number = re.search(r"\['encoderblock_(\d+)'\]", name)
            assert number is not None, name
            value = values[name.replace(number[0], "['encoderblock']")][int(number[1])]
        return jax.device_put(value, leaf.sharding)

    return jax.tree_util.tree_map_with_path(find, like)


def count_params(params: Any) -> int:
    """Number of parameters in a tree of arrays or shapes."""
    return sum(x.size for x in jax.tree.leaves(params))
