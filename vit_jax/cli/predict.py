"""Classifies images with a checkpoint of any format: the five likeliest classes of each, with their probabilities.

In a folder, it classifies all images in and below it. Images are prepared as the checkpoint's run prepared the images that it
scored; if the checkpoint does not record that, they are squashed to the resolution that its positions were trained at (224 for a
ResNet). Files that cannot be read are named at the end; the exit code is 2 if none can be read.
"""

from __future__ import annotations

import json
import sys

from vit_jax.cli.flags import Parser, add_model
from vit_jax.process import reports_user_errors, set_up_process
from vit_jax.types import UserError, itemize, printable

EXAMPLES = """
vit_jax predict --model=runs/mine cat.jpg dog.jpg
vit_jax predict --model=imagenet21k+imagenet2012:B/16 --json photos
"""


def make_parser() -> Parser:
    """The flags."""
    parser = Parser("predict", EXAMPLES, __doc__)
    add_model(parser)
    parser.add_argument("--json", action="store_true", help="one line of JSON per image")
    parser.add_argument("paths", nargs="+", help="images, and folders of images")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs the verb; returns the exit code."""
    flags = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
    set_up_process()
    from vit_jax.convert.load import parse_overrides
    from vit_jax.predict import Predictor, find_images

    files, unread, read = find_images(flags.paths), list[str](), 0
    predictor = Predictor.load(flags.model, **{"weights": flags.weights, **parse_overrides(flags.set)})
    for file, classes, error in predictor.files(files):
        if error:
            unread.append(f"{file}: {error}")
            continue
        read += 1
        if flags.json:
            print(json.dumps({"file": file, "classes": [(name, round(share, 4)) for name, share in classes]}))
        else:
            form = ".4g" if predictor.target == "Values" else ".1%"
            print(printable(f"{file}: " + ", ".join(f"{name} {share:{form}}" for name, share in classes)))
    if unread:
        message = f"{len(unread)} of {len(unread) + read} files cannot be read as images:\n{itemize(unread)}"
        if not read:
            raise UserError(message)
        print(message, file=sys.stderr)
    return 0
