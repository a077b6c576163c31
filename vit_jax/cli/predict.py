"""Classifies images with a checkpoint of any format: the five likeliest classes of each, with their probabilities; of a detector,
the objects that it finds.

In a folder, it classifies all images in and below it. Images are prepared as the checkpoint's run prepared the images that it
scored; if the checkpoint does not record that, they are squashed to the resolution that its positions were trained at (224 for a
ResNet), or for a detector fitted into it. With a detector, --to=FOLDER writes each image with its boxes, and results.json in the
form of COCO's results, which holds the detections below --threshold too. Files that cannot be read are named at the end; the exit
code is 2 if none can be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from vit_jax.cli.flags import Parser, add_model
from vit_jax.process import reports_user_errors, set_up_process
from vit_jax.types import UserError, itemize, printable

if TYPE_CHECKING:
    from vit_jax.detect import Detector
    from vit_jax.predict import Predictor

EXAMPLES = """
vit_jax predict --model=runs/mine cat.jpg dog.jpg
vit_jax predict --model=imagenet21k+imagenet2012:B/16 --json photos
vit_jax predict --model=runs/canvases --to=found photos     a detector: boxes, pictures and COCO's results
"""


def make_parser() -> Parser:
    """The flags."""
    parser = Parser("predict", EXAMPLES, __doc__)
    add_model(parser)
    parser.add_argument("--json", action="store_true", help="one line of JSON per image")
    parser.add_argument("--to", default="", metavar="FOLDER", help="of a detector: new folder for pictures and results")
    parser.add_argument("--threshold", type=float, default=0.5, help="of a detector: least score that is shown")
    parser.add_argument("paths", nargs="+", help="images, and folders of images")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs the verb; returns the exit code."""
    flags = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
    set_up_process()
    from vit_jax import detect
    from vit_jax.convert.load import load, parse_overrides
    from vit_jax.predict import Predictor, find_images

    files = find_images(flags.paths)
    options = {"channels": 3, "weights": flags.weights, **parse_overrides(flags.set)}
    loaded = load(flags.model, stored_pixels=True, **options)
    if detect.is_detector(loaded):
        return report(find(detect.Detector.of(loaded), files, flags))
    if flags.to:
        raise UserError(
            f"--to={flags.to} is for detectors, and {flags.model} is a classifier; leave it out, or use --json"
        )
    return report(name(Predictor.of(loaded), files, flags))


def name(predictor: Predictor, files: list[str], flags: argparse.Namespace) -> Iterator[str]:
    """Prints the classes of each file; yields for each why it cannot be read, or ""."""
    for file, classes, error in predictor.files(files):
        if not error and flags.json:
            print(json.dumps({"file": file, "classes": [(name, round(share, 4)) for name, share in classes]}))
        elif not error:
            form = ".4g" if predictor.target == "Values" else ".1%"
            print(printable(f"{file}: " + ", ".join(f"{name} {share:{form}}" for name, share in classes)))
        yield error and f"{file}: {error}"


def find(detector: Detector, files: list[str], flags: argparse.Namespace) -> Iterator[str]:
    """Prints the objects in each file, and writes them if asked; yields for each file why it cannot be read, or ""."""
    from vit_jax import detect

    found = detector.files(files)
    for one in detect.write(found, detector, files, flags.to, flags.threshold) if flags.to else found:
        if not one.error and flags.json:
            print(json.dumps({"file": one.file, "objects": detect.results(one, detector.class_ids, 0)}))
        elif not one.error:
            print(detect.describe(one, detector.classes, flags.threshold))
        yield one.error and f"{one.file}: {one.error}"


def report(errors: Iterable[str]) -> int:
    """Names the files that cannot be read; returns the exit code."""
    unread, read = [], 0
    for error in errors:
        read += not error
        unread += [error] if error else []
    if unread:
        message = f"{len(unread)} of {len(unread) + read} files cannot be read as images:\n{itemize(unread)}"
        if not read:
            raise UserError(message)
        print(message, file=sys.stderr)
    return 0
