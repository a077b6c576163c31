"""Classifies images with a checkpoint of any format: the likeliest classes of each, with their probabilities; of a detector, the
objects that it finds.

Images are files, folders (all images in and below), patterns in quotes, tar files, and `-` for names on standard input. They are
prepared as the checkpoint's run prepared the images that it scored; if the checkpoint does not record that, they are squashed to
the resolution that its positions were trained at (224 for a ResNet), or for a detector fitted into it. With a detector,
--to=FOLDER writes each image with its boxes, and results.json in the
form of COCO's results, which holds the detections below --threshold too. Files that cannot be read are named at the end; the exit
code is 2 if none can be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from vit_jax.cli import writers
from vit_jax.cli.flags import Parser, add_model, track
from vit_jax.process import reports_user_errors, set_up_process
from vit_jax.types import UserError, itemize

if TYPE_CHECKING:
    from vit_jax.detect import Detector
    from vit_jax.predict import Predictor

EXAMPLES = """
vit_jax predict --model=runs/mine cat.jpg dog.jpg
vit_jax predict --model=imagenet21k+imagenet2012:B/16 --json photos
vit_jax predict --model=runs/mine --format=csv --top=1 shards/test-000000.tar > classes.csv
find photos -name '*.jpg' | vit_jax predict --model=runs/mine --format=table -
vit_jax predict --model=runs/canvases --to=found photos     a detector: boxes, pictures and COCO's results
"""


def make_parser() -> Parser:
    """The flags."""
    parser = Parser("predict", EXAMPLES, __doc__)
    add_model(parser)
    parser.add_argument(
        "--format",
        choices=("lines", "json", "csv", "table"),
        default="lines",
        help="of the output; json is one line per image",
    )
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format=json")
    parser.add_argument("--top", type=int, default=5, help="classes per image")
    parser.add_argument("--batch", type=int, default=32, help="images per batch")
    parser.add_argument("--to", default="", metavar="FOLDER", help="of a detector: new folder for pictures and results")
    parser.add_argument("--threshold", type=float, default=0.5, help="of a detector: least score that is shown")
    parser.add_argument("paths", nargs="+", help="images, folders, patterns, tar files, or - for standard input")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs the verb; returns the exit code."""
    parser = make_parser()
    flags = parser.parse_args(sys.argv[1:] if argv is None else argv)
    if min(flags.top, flags.batch) < 1:
        parser.error(f"--top={flags.top} and --batch={flags.batch}; expected 1 or more")
    set_up_process()
    from vit_jax import detect
    from vit_jax.convert.load import load, parse_overrides
    from vit_jax.predict import Predictor, find_images

    files = find_images(flags.paths)
    options = {"channels": 3, "weights": flags.weights, **parse_overrides(flags.set)}
    loaded = load(flags.model, stored_pixels=True, **options)
    if detect.is_detector(loaded):
        if flags.format not in ("lines", "json"):
            raise UserError(
                f"--format={flags.format} is for classifiers; of a detector, use --format=json or --to=FOLDER"
            )
        return report(find(detect.Detector.of(loaded), files, flags))
    if flags.to:
        raise UserError(
            f"--to={flags.to} is for detectors, and {flags.model} is a classifier; leave it out, or use --format=csv"
        )
    return report(name(Predictor.of(loaded, batch_size=flags.batch), files, flags))


def name(predictor: Predictor, files: list[str], flags: argparse.Namespace) -> Iterator[str]:
    """Prints the classes of each file; yields for each why it cannot be read, or ""."""
    write = writers.WRITERS[flags.format](predictor, flags.top)
    for one in track(predictor.files(files, flags.top), len(files), "images", prints=flags.format != "table"):
        if not one.error:
            write.row(one)
        yield one.error and f"{one.file}: {one.error}"
    write.end()


def find(detector: Detector, files: list[str], flags: argparse.Namespace) -> Iterator[str]:
    """Prints the objects in each file, and writes them if asked; yields for each file why it cannot be read, or ""."""
    from vit_jax import detect

    found = detector.files(files)
    if flags.to:
        found = detect.write(found, detector, files, flags.to, flags.threshold)
    for one in track(found, len(files), "images", prints=True):
        if not one.error and flags.format == "json":
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
