"""A config's model and its cost: parameters, tokens and FLOPs, from shapes alone. No image is read, no parameter allocated."""

from __future__ import annotations

from typing import Any

from vit_jax import config as configs
from vit_jax.flops import count_flops
from vit_jax.resolve import resolve
from vit_jax.types import UserError

ASSUMED_CLASSES = 1000
# Sizes of the paper's data sets (arXiv 2010.11929, section 4.1), for a plan on a machine without them.
EXAMPLES = {"jft_300m": 303_000_000, "imagenet21k": 14_197_122, "imagenet2012": 1_281_167}


def count_classes(draft: Any, overrides: list[tuple[str, str]]) -> tuple[int, str]:
    """Number of classes of a config's model, and the source of that number."""
    from vit_jax.data.open import open_source
    from vit_jax.run.schema import SCHEMA

    config = resolve(draft, SCHEMA, overrides)
    if config.model.num_classes:
        return config.model.num_classes, "the config"
    try:
        data = config.data
        return open_source(data.dataset, data.split, data.data_dir).spec.num_classes, data.dataset
    except UserError as error:
        return ASSUMED_CLASSES, f"assumed ({error})"


def count_examples(config: Any) -> int | None:
    """Number of training examples of a resolved config: the data's, else the paper's, else None."""
    from vit_jax.data.open import open_source

    data = config.data
    try:
        return open_source(data.dataset, data.split, data.data_dir).spec.num_examples
    except UserError:
        return EXAMPLES.get(data.dataset)


def plan(spec: str, overrides: list[tuple[str, str]]) -> dict[str, Any]:
    """{model, resolution, num_classes, classes_from, params, tokens, forward_flops_per_image, train_flops_per_image}."""
    import jax
    import numpy as np

    from vit_jax.models.build import count_params
    from vit_jax.run.job import stand_in
    from vit_jax.run.schema import SCHEMA

    draft = configs.load(spec)
    num_classes, classes_from = count_classes(draft, overrides)
    batch_size = jax.device_count() * (resolve(draft, SCHEMA, overrides).train.accumulation or 1)
    alone = [*overrides, ("data.batch_size", str(batch_size)), ("train.fsdp", "1")]  # as this machine's devices can
    config, parts = stand_in(draft, alone, num_classes=num_classes)
    images = jax.ShapeDtypeStruct((1, *config.data.resolution, 3), np.uint8)
    forward = jax.jit(parts.forward).trace(parts.abstract.params, images)
    _, train_flops = parts.trace(config.data.batch_size, config.data.resolution)
    return {
        "config": spec,
        "model": config.model.name,
        "resolution": list(config.data.resolution),
        "num_classes": config.model.num_classes,
        "classes_from": classes_from,
        "params": count_params(parts.abstract.params),
        "tokens": forward.out_info.tokens.shape[1],
        "forward_flops_per_image": count_flops(forward.jaxpr),
        "train_flops_per_image": train_flops,
    }
