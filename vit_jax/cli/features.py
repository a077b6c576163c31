"""Writes a checkpoint's features of a data set or of a folder of photographs to a folder of shards, with ids and labels.

With --split, --data is a data set, as for training; without it, image files and folders of them, which have no labels. The same
command continues an interrupted run after its last whole shard. Images that do not decode are left out and named.
`vit_jax.evals.stored.read_features` reads the folder again, for `probe` (k-NN, few-shot, linear).
"""

from __future__ import annotations

import sys

from vit_jax.cli.flags import MODEL_HELP, Parser, add_data_dir, add_set, add_weights, track
from vit_jax.process import reports_user_errors, set_up_process
from vit_jax.types import counted, itemize

EXAMPLES = """
vit_jax features runs/mine --data=FOLDER --split=train --to=features/train
vit_jax features augreg:B/16 --data=PHOTOS --format=npz --to=features/photos
vit_jax features runs/mine --data=cifar10 --split=test --layer=6 --pool=mean --to=features/block6
"""


def make_parser() -> Parser:
    """The flags."""
    parser = Parser("features", EXAMPLES, __doc__)
    parser.add_argument("model", metavar="CHECKPOINT", help=MODEL_HELP)
    parser.add_argument("--data", required=True, help="data set (with --split), or image file or folder of them")
    parser.add_argument(
        "--split", default="", help="in TFDS's syntax, test or train[90%%:]; none for images without labels"
    )
    parser.add_argument(
        "--layer", default="pre_logits", help="pre_logits (default), pooled, tokens, or a block from 1 on"
    )
    parser.add_argument(
        "--pool",
        choices=("none", "token", "mean"),
        default="none",
        help="of tokens: all, the class token, or their mean",
    )
    parser.add_argument("--to", required=True, metavar="DIR", help="folder of the shards; continued if it holds such")
    parser.add_argument("--format", choices=("safetensors", "npz"), default="safetensors", help="of the shards")
    parser.add_argument("--half", action="store_true", help="float16 instead of float32")
    parser.add_argument("--recipe", default="", help="how images are prepared; default: as the run was scored")
    parser.add_argument("--batch", type=int, default=64, help="global batch size")
    parser.add_argument("--shard-size", type=int, default=0, help="examples per shard; default: 4096, or 256 MiB")
    parser.add_argument("--max-corrupt", type=int, default=100, help="images that may fail to decode")
    add_data_dir(parser)
    add_weights(parser)
    add_set(parser)
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs the verb; returns the exit code."""
    flags = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
    set_up_process()
    from vit_jax.convert.load import parse_overrides
    from vit_jax.features import write_features

    options = {key: x for key, x in vars(flags).items() if key not in ("model", "data", "to", "batch", "set")}
    done = write_features(
        flags.model,
        flags.data,
        flags.to,
        batch_size=flags.batch,
        watch=lambda shards, total: track(shards, total, "shards"),
        **{**options, **parse_overrides(flags.set)},
    )
    kept = f", {done.kept} of them of an earlier run" if done.kept else ""
    print(f"wrote features of {counted(done.count, 'example')} to {done.folder}: {counted(done.shards, 'shard')}{kept}")
    if done.missing:
        message = f"{counted(len(done.missing), 'image')} left out, which do not decode"
        print(f"{message}:\n{itemize(done.missing)}", file=sys.stderr)
    return 0
