"""Scores a checkpoint of any format: top-1, top-5, likelihood and calibration, every example counted once.

Images are squashed to the resolution that the model's positions were trained at, as the release evaluates; --resolution
resizes the positions to another. nll is the mean negative log-likelihood of the softmax (use --likelihood=sigmoid for a model
pre-trained with that loss), ece is the expected calibration error over 15 bins, and each figure has a 95% interval from 1,000
bootstrap resamples of the images. If the checkpoint has class names, classes are compared by name: the same classes in another
order are matched by name, other classes are refused.

--pack=imagenet scores ImageNet's validation set, ReaL, V2, A, R, Sketch and ObjectNet, each by its own protocol: several right
labels per image (ReaL, ObjectNet), predictions among the set's 200 classes only (A, R); for ObjectNet, the border is cut, the
shorter side is resized to 16/15 of the resolution, and the centre is cropped. A missing set is named with the command that
supplies it, and does not stop the others; the exit code is then 2.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from vit_jax.cli.flags import Parser, add_data_dir, add_model
from vit_jax.process import EXIT_USER_ERROR, reports_user_errors, set_up_process

EXAMPLES = """
vit_jax evaluate --model=runs/mine --dataset=FOLDER --split=test
vit_jax evaluate --model=imagenet21k+imagenet2012:B/16 --dataset=imagenet2012 --split=validation --json
vit_jax evaluate --model=imagenet21k+imagenet2012:B/16 --pack=imagenet
"""
FIGURES = ("top1", "top5", "nll", "ece")


def describe(figure: str, scores: dict[str, float], interval: str = "95% interval ") -> str:
    """`77.91% (95% interval 77.55 to 78.27)`: a figure and its interval, introduced by the text `interval`."""
    scale, digits = (1.0, 3) if figure == "nll" else (100.0, 2)
    unit = "" if figure == "nll" else "%"
    text = f"{scale * scores[figure]:.{digits}f}{unit}"
    if f"{figure}_low" in scores:
        low, high = (scale * scores[f"{figure}_{end}"] for end in ("low", "high"))
        text += f" ({interval}{low:.{digits}f} to {high:.{digits}f})"
    return text


def print_pack(result: dict[str, Any]) -> None:
    """Prints the table of a pack, in its order, with missing sets."""
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


def make_parser() -> Parser:
    """The flags."""
    parser = Parser("evaluate", EXAMPLES, __doc__)
    add_model(parser)
    parser.add_argument("--dataset", default="", help="TFDS name, image folder, or objectnet")
    parser.add_argument("--split", default="", help="in TFDS's syntax, test or train[90%%:]")
    parser.add_argument("--pack", default="", help="imagenet: the validation set and the six test sets beside it")
    add_data_dir(parser)
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
    parser.add_argument("--json", action="store_true", help="one line of JSON and nothing else")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs the verb; returns the exit code."""
    parser = make_parser()
    flags = parser.parse_args(sys.argv[1:] if argv is None else argv)
    if bool(flags.pack) == bool(flags.dataset) or bool(flags.dataset) != bool(flags.split):
        parser.error("give either --dataset and --split, or --pack")
    set_up_process()
    from vit_jax.convert.load import parse_overrides
    from vit_jax.evaluate import evaluate

    options = {key: x for key, x in vars(flags).items() if key not in ("set", "json", "model", "batch")}
    result = evaluate(flags.model, batch_size=flags.batch, **{**options, **parse_overrides(flags.set)})
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
