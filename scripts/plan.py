"""What a config's model is and costs, before anything is rented: no image is read, no parameter allocated.

    python scripts/plan.py --config=configs/pretrain.py:variant=H/14,dataset=jft
    python scripts/plan.py --config=configs/hybrid.py:variant=R50+B/16,dataset=imagenet21k --json

Prints parameters, tokens an image, and FLOPs an image, forward and for training (forward, backward, and what remat
recomputes): matrix products and convolutions of the traced program, a multiply and an add counted as two. Config overrides
as in vit_jax.main. The number of classes is the config's, else the data's, else (where the data is missing) 1,000; the line
classes_from says which.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vit_jax import config as configs
from vit_jax.main import parse_command_line
from vit_jax.process import first_paragraph, reports_user_errors
from vit_jax.types import UserError

ASSUMED_CLASSES = 1000


def count_classes(config: Any) -> tuple[int, str]:
    """Number of classes of a resolved config, and who says so."""
    from vit_jax.data.open import open_source

    if config.model.num_classes:
        return config.model.num_classes, "the config"
    try:
        data = config.data
        return open_source(data.dataset, data.split, data.data_dir).spec.num_classes, data.dataset
    except UserError as error:
        return ASSUMED_CLASSES, f"assumed ({error})"


def plan(spec: str, overrides: list[tuple[str, str]]) -> dict[str, Any]:
    """{model, resolution, num_classes, classes_from, params, tokens, forward_flops_per_image, train_flops_per_image}."""
    import jax
    import numpy as np

    from vit_jax.assemble import build_parts, follow_init, resolve
    from vit_jax.bench.flops import count_flops
    from vit_jax.models.build import count_params

    config = configs.load(spec)
    resolve(config, overrides)
    follow_init(config, overrides)
    with config.unlocked():
        config.model.num_classes, classes_from = count_classes(config)
        config.data.batch_size = jax.device_count() * config.train.accumulation
    total_steps = 10_000  # only the learning rate depends on it
    parts = build_parts(config, total_steps, functools.partial(configs.steps, steps_per_epoch=100, total=total_steps))
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


@reports_user_errors
def main() -> int:
    """Runs; returns the exit code."""
    parser = argparse.ArgumentParser(description=first_paragraph(__doc__), allow_abbrev=False)
    parser.add_argument("--config", required=True, help="config file and its arguments")
    parser.add_argument("--json", action="store_true", help="one line of JSON and nothing else")
    flags, overrides = parse_command_line(sys.argv[1:], parser)
    result = plan(flags.config, overrides)
    if flags.json:
        print(json.dumps(result))
    else:
        width = max(map(len, result))
        for key, value in result.items():
            print(f"{key:<{width}}  {value:,}" if isinstance(value, int) else f"{key:<{width}}  {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
