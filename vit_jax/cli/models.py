"""Lists the released models: size, tokens, FLOPs, published accuracy, and the command that would reproduce each.

NAME chooses those whose names contain it; of up to ten, the commands are shown too.
"""

from __future__ import annotations

import json
import sys

from vit_jax.cli.flags import Parser
from vit_jax.process import reports_user_errors

EXAMPLES = """
vit_jax models augreg:B/16
vit_jax models
vit_jax models --json imagenet21k
"""


def make_parser() -> Parser:
    """The flags."""
    parser = Parser("models", EXAMPLES, __doc__)
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="a name, or a part of names")
    parser.add_argument("--json", action="store_true", help="one line of JSON per model")
    parser.add_argument("--markdown", action="store_true", help="the text of docs/models.md")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs the verb; returns the exit code."""
    flags = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
    from vit_jax.cards import released

    if flags.markdown:
        print(released.markdown(), end="")
        return 0
    chosen = released.models(flags.name)
    if not flags.json:
        print(released.describe(chosen))
    for model in chosen if flags.json else []:
        print(json.dumps({**model.released._asdict(), **model._asdict(), "released": model.released.name}))
    return 0
