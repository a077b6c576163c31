"""Finds images of a training set that are copies of test images, and writes the list of images to leave out of training.

A data set is DATASET or DATASET@SPLIT: the text after the last @ is the split, in TFDS's syntax (`cifar10:3.0.2@train[:90%]`,
`photos@train+val`), unless a slash comes after it. The default split is `train` for --train and `test` for --against.

Candidates are images whose perceptual hashes are near each other, as they are or mirrored. Without --model, their pixels confirm
them: this finds copies that were re-encoded, resized, mirrored, brightened or cropped a little. With --model, its representations
confirm them, and --neighbours also searches all images for copies that hashes miss. Each image is hashed once; hashes and
embeddings stay in the folder for the next run, even after an interrupted one.

The folder gets exclude.txt (for data.exclude), pairs.csv and pairs.html, a page of the most doubtful pairs for you to check.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from vit_jax.cli.flags import Parser, add_data_dir, add_set
from vit_jax.process import reports_user_errors, set_up_process

EXAMPLES = """
vit_jax dedup --train=photos --against=cifar10@test --against=oxford_iiit_pet@test --to=runs/duplicates
vit_jax dedup --train=photos --against=cifar10 --to=runs/duplicates --model=augreg:B/16 --neighbours
vit_jax train --config=... --config.data.exclude=runs/duplicates/exclude.txt
"""


def make_parser() -> Parser:
    """The flags."""
    from vit_jax.data.dedup.duplicates import CORRELATION, RADIUS
    from vit_jax.data.dedup.hashing import BITS

    parser = Parser("dedup", EXAMPLES, __doc__, old={"--checkpoint": "--model"})
    parser.add_argument("--train", required=True, metavar="DATASET[@SPLIT]", help="to remove copies from")
    parser.add_argument("--against", required=True, action="append", metavar="DATASET[@SPLIT]", help="test set; repeat")
    parser.add_argument(
        "--to", required=True, metavar="FOLDER", help="for the results, and what is kept for a next run"
    )
    add_data_dir(parser)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2, help="that decode and compare")
    parser.add_argument("--pairs", type=int, default=200, help="pairs on the page at most (default %(default)s)")
    parser.add_argument(
        "--radius",
        type=int,
        default=RADIUS,
        help=f"bits of {BITS} that hashes may differ in (%(default)s)",
    )
    parser.add_argument(
        "--correlation",
        type=float,
        default=CORRELATION,
        help="least, of a copy's pixels (default %(default)s)",
    )
    parser.add_argument("--model", default="", help="of any format; its representations confirm, in place of pixels")
    parser.add_argument("--neighbours", action="store_true", help="search by representation too, over all images")
    parser.add_argument(
        "--similarity",
        type=float,
        default=0.9,
        help="least cosine of a copy (default %(default)s; what is right depends on the model: look at the page)",
    )
    parser.add_argument("--weights", choices=("raw", "average"), default="raw", help="of a vit_jax workdir")
    add_set(parser)
    parser.add_argument("--batch", type=int, default=64, help="images the model sees at once")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs the verb; returns the exit code."""
    flags = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
    from vit_jax.data.dedup.search import Search, deduplicate

    model = None
    if flags.model:
        set_up_process()
        from vit_jax.convert.load import parse_overrides
        from vit_jax.insight.representation import Representation

        model = Representation.load(
            flags.model,
            Path(flags.to) / "embeddings",
            settings=flags.set,
            batch_size=flags.batch,
            threads=flags.threads,
            **{"weights": flags.weights, **parse_overrides(flags.set)},
        )
    deduplicate(
        Search(
            train=flags.train,
            against=flags.against,
            to=flags.to,
            data_dir=flags.data_dir,
            threads=flags.threads,
            shown=flags.pairs,
            radius=flags.radius,
            least=flags.similarity if flags.model else flags.correlation,
            model=model,
            neighbours=flags.neighbours,
        )
    )
    return 0
