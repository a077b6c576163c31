"""Exports a checkpoint of any format as one file that runs without vit_jax, into a new folder, with README.md and labels.json.

The file takes uint8 RGB images, any number at once, of the checkpoint's resolution (--set resolution=384,384 for another), and
maps them to the model's range itself. `stablehlo` runs with jax alone, one file for CPUs, CUDA GPUs and TPUs; `onnx` runs in any
runtime of ONNX, and needs `pip install 'vit_jax[onnx]'` to write. The file is run on random images and compared with the model
before anything is left behind; for ONNX, where onnxruntime is installed.
"""

from __future__ import annotations

import sys

from vit_jax.cli.flags import MODEL_HELP, Parser, add_set, add_weights
from vit_jax.process import reports_user_errors, set_up_process

EXAMPLES = """
vit_jax export runs/mine --format=onnx --to=mine_onnx
vit_jax export augreg:B/16 --output=features --to=b16
"""


def make_parser() -> Parser:
    """The flags."""
    parser = Parser("export", EXAMPLES, __doc__)
    parser.add_argument("model", metavar="CHECKPOINT", help=MODEL_HELP)
    parser.add_argument("--format", choices=("stablehlo", "onnx"), default="stablehlo", help="of the file")
    parser.add_argument(
        "--output",
        choices=("probabilities", "features", "boxes"),
        help="what it returns; default: a detector's boxes, or probabilities, or for a model without a head its features",
    )
    parser.add_argument("--to", required=True, metavar="DIR", help="new folder")
    add_weights(parser)
    add_set(parser)
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs the verb; returns the exit code."""
    flags = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
    set_up_process()
    from vit_jax.convert.load import parse_overrides
    from vit_jax.export.folder import export

    options = {"weights": flags.weights, **parse_overrides(flags.set)}
    done = export(flags.model, flags.to, flags.format, flags.output, **options)
    for file in done.files:
        print(f"wrote {file}")
    if done.difference is None:
        print("the file was not run: onnxruntime is not installed (pip install onnxruntime)")
    else:
        print(f"the file was run: its outputs differ from the model's by at most {done.difference:.1g}")
    return 0
