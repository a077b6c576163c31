"""Scores a checkpoint of any format on a data set: top-1, top-5 and loss, every example counted once.

    python scripts/evaluate.py --model=runs/mine --dataset=FOLDER --split=test
    python scripts/evaluate.py --model=imagenet21k+imagenet2012:B/16 --dataset=imagenet2012 --split=validation --json

Images are squashed to the resolution that the model's positions were trained at, as the release evaluates; --resolution
resizes the positions to another. Softmax cross-entropy is the loss.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vit_jax.main import EXIT_USER_ERROR, prepare_process
from vit_jax.types import UserError


def evaluate(flags: argparse.Namespace) -> dict[str, Any]:
    """{model, dataset, split, resolution, top1, top5, loss, num_examples}.

    Raises:
      UserError: no such data or checkpoint, a head that was never trained or has another number of classes.
    """
    from vit_jax import partition
    from vit_jax.convert.load import check_head, load, parse_overrides, resolution_of
    from vit_jax.evals.classification import Classification
    from vit_jax.models.build import make_forward
    from vit_jax.train.objectives import softmax_cross_entropy

    size = (flags.resolution, flags.resolution) if flags.resolution else None
    options = {"channels": 3, "resolution": size, **parse_overrides(flags.set)}
    loaded = load(flags.model, weights=flags.weights, stored_pixels=True, **options)
    check_head(loaded)
    mesh = partition.make_mesh(1)
    partition.check_batch_size(flags.batch, mesh, path="--batch")
    resolution = size or resolution_of(loaded)
    evaluator = Classification(
        split=flags.split,
        dataset=flags.dataset,
        data_dir=flags.data_dir,
        resolution=resolution,
        batch_size=flags.batch,
    )
    (spec,) = evaluator.open()
    if spec.num_classes > loaded.settings["num_classes"]:
        raise UserError(
            f"{flags.model} scores {loaded.settings['num_classes']} classes and {flags.dataset} has {spec.num_classes}; "
            f"fine-tune it on that data set first"
        )
    params = partition.put_tree(loaded.params, partition.param_sharding(loaded.params, mesh))
    scores = evaluator(params, make_forward(loaded.module), softmax_cross_entropy(), mesh)
    named = {"model": flags.model, "dataset": flags.dataset, "split": flags.split, "resolution": list(resolution)}
    return named | scores


def main() -> int:
    """Runs; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--model", required=True, help="checkpoint: file, folder, workdir or released name")
    parser.add_argument("--weights", choices=("raw", "average"), default="raw", help="of a workdir of ours")
    parser.add_argument("--dataset", required=True, help="TFDS name or image folder")
    parser.add_argument("--split", required=True, help="in TFDS's syntax, test or train[90%%:]")
    parser.add_argument("--data-dir", default="", help="where TFDS data sets are")
    parser.add_argument("--resolution", type=int, default=0, help="pixels per side; default: the checkpoint's own")
    parser.add_argument("--batch", type=int, default=64, help="global batch size")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as convert_checkpoint's")
    parser.add_argument("--json", action="store_true", help="one line of JSON and nothing else")
    flags = parser.parse_args()
    try:
        prepare_process()
        result = evaluate(flags)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    if flags.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key:<12}  {f'{value:.2%}' if key.startswith('top') else value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
