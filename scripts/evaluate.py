"""Scores a checkpoint of any format: top-1, top-5, likelihood and calibration, every example counted once.

    python scripts/evaluate.py --model=runs/mine --dataset=FOLDER --split=test
    python scripts/evaluate.py --model=imagenet21k+imagenet2012:B/16 --dataset=imagenet2012 --split=validation --json
    python scripts/evaluate.py --model=imagenet21k+imagenet2012:B/16 --pack=imagenet

Images are squashed to the resolution that the model's positions were trained at, as the release evaluates; --resolution
resizes the positions to another. nll is the mean negative log-likelihood of the softmax (--likelihood=sigmoid for a model
pre-trained with that loss), ece the expected calibration error over 15 bins, and each figure has a 95% interval, of 1,000
bootstrap resamples of the images. Classes are compared by name where the checkpoint has names: the same ones in another order
are scored by name, other ones are refused.

--pack=imagenet scores ImageNet's validation set, ReaL, V2, A, R, Sketch and ObjectNet, each by its own protocol: several right
labels an image (ReaL, ObjectNet), predictions among the set's 200 classes only (A, R), ObjectNet's border cut and its shorter
side resized to 16/15 of the resolution, of which the centre is cropped. A set that is missing is named with what supplies it,
and does not stop the others; the exit code is then 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vit_jax.convert.load import Loaded

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vit_jax.flags import add_set
from vit_jax.process import EXIT_USER_ERROR, first_paragraph, prepare_process, reports_user_errors
from vit_jax.types import UserError, nearest, printable

FIGURES = ("top1", "top5", "nll", "ece")


def evaluate(flags: argparse.Namespace) -> dict[str, Any]:
    """{model, resolution, likelihood, dataset, split, scores...}; of a pack {..., pack, sets: {name: scores}, missing: {...}}.

    Raises:
      UserError: no such data or checkpoint, a head that was never trained or has another number of classes.
    """
    from vit_jax import partition
    from vit_jax.convert.load import check_head, fit_head, load, parse_overrides, resolution_of
    from vit_jax.evals.base import Bound
    from vit_jax.evals.imagenet import PACKS, open_pack
    from vit_jax.evals.scorecard import Scorecard
    from vit_jax.models.build import make_forward

    if flags.pack and flags.pack not in PACKS:
        raise UserError(f"no pack {flags.pack!r}; {nearest(flags.pack, PACKS)}")
    size = (flags.resolution, flags.resolution) if flags.resolution else None
    settings = {"channels": 3, "resolution": size, **parse_overrides(flags.set)}
    loaded = load(flags.model, weights=flags.weights, stored_pixels=True, **settings)
    check_head(loaded)
    mesh = partition.make_mesh(1)
    partition.check_batch_size(flags.batch, mesh, path="--batch")
    resolution = size or resolution_of(loaded)
    options = {
        "data_dir": flags.data_dir,
        "resolution": resolution,
        "batch_size": flags.batch,
        "bootstrap": flags.bootstrap,
        "likelihood": flags.likelihood,
        "exif": flags.exif,
    }
    num_classes = loaded.settings["num_classes"]
    missing: dict[str, str] = {}
    if flags.pack:
        evaluators, missing = open_pack(flags.pack, num_classes, **options)
        for name in missing:
            print(f"{name} is missing; why is said at the end", file=sys.stderr)
    else:
        evaluators = {"": Scorecard(dataset=flags.dataset, split=flags.split, recipe=flags.recipe, **options)}
        evaluators[""].open()
        evaluators[""].check_head(num_classes)
    heads = {
        name: fit_head(loaded, evaluator.spec.class_names, evaluator.spec.name)
        for name, evaluator in evaluators.items()
    }
    for note in dict.fromkeys(note for note in (*adapted(loaded), *(note for _, note in heads.values())) if note):
        print(printable(f"note: {note}"), file=sys.stderr)
    bound = Bound(make_forward(loaded.module), None, mesh, num_classes)
    named = {"model": flags.model, "resolution": list(resolution), "likelihood": flags.likelihood}
    scores = {}
    for name, evaluator in evaluators.items():
        params = partition.put_tree(heads[name][0], partition.param_sharding(heads[name][0], mesh))
        try:
            scores[name] = evaluator.bind(bound)(params).values
        except UserError as error:  # too many images that do not decode
            if not flags.pack:
                raise
            missing[name] = str(error)
    if flags.pack:
        for name, reason in missing.items():
            print(f"{name} is left out: {reason}", file=sys.stderr)
        return {**named, "pack": flags.pack, "sets": scores, "missing": missing}
    return {**named, "dataset": flags.dataset, "split": flags.split, **scores[""]}


def adapted(loaded: Loaded) -> list[str]:
    """Changes and assumptions that were made to score a checkpoint, a line each."""
    what = {"channels": "first layer: ", "resized": "positions: ", "assumed": "assumed: "}
    return [what[fate.action] + fate.detail.partition(", from ")[0] for fate in loaded.report if fate.action in what]


def describe(figure: str, scores: dict[str, float], interval: str = "95% interval ") -> str:
    """`77.91% (95% interval 77.55 to 78.27)`: a figure and its interval, called as the caller says."""
    scale, digits = (1.0, 3) if figure == "nll" else (100.0, 2)
    unit = "" if figure == "nll" else "%"
    text = f"{scale * scores[figure]:.{digits}f}{unit}"
    if f"{figure}_low" in scores:
        low, high = (scale * scores[f"{figure}_{end}"] for end in ("low", "high"))
        text += f" ({interval}{low:.{digits}f} to {high:.{digits}f})"
    return text


def print_pack(result: dict[str, Any]) -> None:
    """The table of a pack, in its order, missing sets included."""
    from vit_jax.evals.imagenet import PACKS

    rows: list[tuple[str, ...]] = [("set", *FIGURES, "images")]
    for name, member in PACKS[result["pack"]].items():
        scores = result["sets"].get(name)
        cells = [describe(figure, scores, interval="") for figure in FIGURES] if scores else ["-"] * len(FIGURES)
        rows.append((member.title, *cells, f"{scores['num_examples']:,}" if scores else "missing"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    (h, w) = result["resolution"]
    print(f"{result['model']} at {h}x{w}; 95% intervals in brackets")
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=first_paragraph(__doc__), allow_abbrev=False)
    parser.add_argument("--model", required=True, help="checkpoint: file, folder, workdir or released name")
    parser.add_argument("--weights", choices=("raw", "average"), default="raw", help="of a workdir of ours")
    parser.add_argument("--dataset", default="", help="TFDS name, image folder, or objectnet")
    parser.add_argument("--split", default="", help="in TFDS's syntax, test or train[90%%:]")
    parser.add_argument("--pack", default="", help="imagenet: the validation set and the six test sets beside it")
    parser.add_argument("--data-dir", default="", help="where TFDS data sets are")
    parser.add_argument("--resolution", type=int, default=0, help="pixels per side; default: the checkpoint's own")
    parser.add_argument(
        "--recipe",
        choices=("eval", "eval_crop"),
        default="eval",
        help="eval squashes images, as the release evaluates fine-tuned models; eval_crop resizes the shorter side to 8/7 of "
        "the resolution and crops the middle, as it evaluates while pre-training",
    )
    parser.add_argument(
        "--exif",
        choices=("apply", "ignore"),
        default="apply",
        help="ignore leaves photographs as stored, as published numbers do",
    )
    parser.add_argument("--likelihood", choices=("softmax", "sigmoid"), default="softmax", help="what scores mean")
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamples of the intervals; 0 for none")
    parser.add_argument("--batch", type=int, default=64, help="global batch size")
    add_set(parser)
    parser.add_argument("--json", action="store_true", help="one line of JSON and nothing else")
    flags = parser.parse_args(argv)
    if bool(flags.pack) == bool(flags.dataset) or bool(flags.dataset) != bool(flags.split):
        parser.error("give either --dataset and --split, or --pack")
    return flags


@reports_user_errors
def main() -> int:
    """Runs; returns the exit code."""
    flags = parse()
    prepare_process()
    result = evaluate(flags)
    if flags.json:
        print(json.dumps(result))
    elif flags.pack:
        print_pack(result)
    else:
        for key, value in result.items():
            if key in FIGURES:
                print(f"{key:<12}  {describe(key, result)}")
            elif not key.endswith(("_low", "_high")):
                print(f"{key:<12}  {value}")
    return EXIT_USER_ERROR if result.get("missing") else 0


if __name__ == "__main__":
    sys.exit(main())
