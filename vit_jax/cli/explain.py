"""Writes a page about what a model learned: filters, positions, and on your images its attention and its layers.

The page is index.html in the folder --to, with its numbers as CSV and npz beside it: docs/insight.md explains them. Without
--compare, the layers of the model are compared with one another. Images that cannot be read are named and left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vit_jax.cli.flags import MODEL_HELP, Parser, add_data_dir, add_set
from vit_jax.process import reports_user_errors, set_up_process
from vit_jax.types import counted, itemize

EXAMPLES = """
vit_jax explain runs/mine --images=PHOTOS --to=explained
vit_jax explain runs/quickstart/finetune --images=digits --to=explained
vit_jax explain imagenet21k+imagenet2012:B/16 --images=PHOTOS --class=tabby --layer=12 --head=3 --to=explained
vit_jax explain runs/mine --compare=runs/theirs --images=PHOTOS --to=explained
"""


def count(text: str) -> int:
    """Parses a number that is 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more, found {text}")
    return int(text)


def make_parser() -> Parser:
    """The flags."""
    parser = Parser("explain", EXAMPLES, __doc__)
    parser.add_argument("model", metavar="CHECKPOINT", help=MODEL_HELP)
    parser.add_argument(
        "--images", required=True, nargs="+", metavar="FOLDER", help="folders of images, images, or a data set's name"
    )
    parser.add_argument(
        "--to", required=True, type=Path, metavar="DIR", help="folder of the page, new or of an older one"
    )
    parser.add_argument("--split", default="test", help="of a data set")
    parser.add_argument("--max-images", type=count, default=128, metavar="N", help="evenly spaced over all; 0 for all")
    parser.add_argument("--pictures", type=count, default=8, metavar="N", help="images whose maps are drawn")
    parser.add_argument(
        "--layer", type=count, default=0, metavar="N", help="whose heads are drawn, from 1; 0 for the last"
    )
    parser.add_argument(
        "--head", type=count, default=0, metavar="N", help="drawn alone, from 1; 0 for all of the layer"
    )
    parser.add_argument(
        "--class", dest="label", default="", metavar="NAME", help="name or number; default: the likeliest"
    )
    parser.add_argument("--compare", default="", metavar="CHECKPOINT", help="whose layers are compared by CKA")
    parser.add_argument("--weights", choices=("raw", "average"), default="raw", help="of a vit_jax workdir")
    add_set(parser)
    add_data_dir(parser)
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs the verb; returns the exit code."""
    flags = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
    set_up_process()
    from vit_jax.convert.load import load, parse_overrides
    from vit_jax.insight.explain import explain
    from vit_jax.insight.images import open_images
    from vit_jax.insight.pictures import Choice
    from vit_jax.insight.store import make_folder, save
    from vit_jax.report.explained import write_explained
    from vit_jax.report.render import PAGE

    source = open_images(flags.images, flags.split, flags.max_images, flags.data_dir)
    make_folder(flags.to)
    options = {"channels": 3, "weights": flags.weights}
    loaded = load(flags.model, stored_pixels=True, **(options | parse_overrides(flags.set)))
    other = load(flags.compare, stored_pixels=True, **options) if flags.compare else None
    explained = explain(loaded, source, Choice(flags.pictures, flags.layer, flags.head, flags.label), other)
    save(explained, flags.to)
    write_explained(flags.to)
    print(f"{flags.to / PAGE}: {counted(explained.facts['measured'], 'image')}")
    for note in explained.facts["notes"]:
        print(note)
    if corrupt := explained.facts["corrupt"]:
        print(f"{counted(len(corrupt), 'image')} cannot be read and left out:\n{itemize(corrupt)}", file=sys.stderr)
    return 0
