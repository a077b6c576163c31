"""Serves a page in the browser on which checkpoints are tried: drop an image; see classes, attention, or a detector's boxes.

Several checkpoints stand side by side. The page is for this machine alone unless --host says otherwise, and needs no network.
Gradio serves it: pip install 'vit_jax[demo]'.
"""

from __future__ import annotations

import sys

from vit_jax.cli.flags import MODEL_HELP, Parser, add_set, add_weights
from vit_jax.process import reports_user_errors, set_up_process

EXAMPLES = """
vit_jax demo runs/quickstart/finetune
vit_jax demo runs/mine runs/theirs --port=7861
"""


def make_parser() -> Parser:
    """The flags."""
    parser = Parser("demo", EXAMPLES, __doc__)
    parser.add_argument("models", metavar="CHECKPOINT", nargs="+", help=MODEL_HELP)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for everyone who can reach it"
    )
    parser.add_argument("--port", type=int, default=7860, help="port to listen on")
    add_weights(parser)
    add_set(parser)
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs the verb; returns the exit code."""
    flags = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
    set_up_process()
    from vit_jax import demo
    from vit_jax.convert.load import parse_overrides

    demo.import_gradio()  # before checkpoints are loaded
    options = {"weights": flags.weights, **parse_overrides(flags.set)}
    demo.serve([demo.show(model, **options) for model in flags.models], host=flags.host, port=flags.port)
    return 0
