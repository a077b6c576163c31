"""Shows a config's model and its cost, before anything is rented: no image is read, no parameter allocated.

Prints parameters, tokens per image, and FLOPs per image, forward and for training (forward, backward, and the recomputation of
remat): matrix products and convolutions of the traced program, with a multiply and an add counted as two. Overrides work as in
`vit_jax train`. The number of classes is the config's, else the data's, else (if the data is missing) 1,000; the line
classes_from says which.
"""

from __future__ import annotations

import json
import sys

from vit_jax.cli.flags import Parser, parse_command_line
from vit_jax.process import reports_user_errors

EXAMPLES = """
vit_jax plan --config=configs/pretrain.py:variant=H/14,dataset=jft
vit_jax plan --config=configs/hybrid.py:variant=R50+B/16,dataset=imagenet21k --json
"""


def make_parser() -> Parser:
    """The flags."""
    parser = Parser("plan", EXAMPLES, __doc__)
    parser.add_argument("--config", required=True, help="config file and its arguments")
    parser.add_argument("--json", action="store_true", help="one line of JSON and nothing else")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs the verb; returns the exit code."""
    flags, overrides = parse_command_line(sys.argv[1:] if argv is None else argv, make_parser())
    from vit_jax.bench.plan import plan

    result = plan(flags.config, overrides)
    if flags.json:
        print(json.dumps(result))
    else:
        width = max(map(len, result))
        for key, value in result.items():
            print(f"{key:<{width}}  {value:,}" if isinstance(value, int) else f"{key:<{width}}  {value}")
    return 0
