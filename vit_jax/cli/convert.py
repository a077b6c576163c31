"""Converts a checkpoint of any format to another. Every tensor is accounted for, and a folder gets a model card, README.md.

--model is an npz or safetensors file, a Hugging Face or timm folder, a workdir of vit_jax, or a released model (`augreg:B/16`).
"""

from __future__ import annotations

import sys

from vit_jax.cli.flags import Parser, add_model
from vit_jax.process import reports_user_errors

EXAMPLES = """
vit_jax convert --model=ViT-B_16.npz --to=vit_b16_hf --format=hf
vit_jax convert --model=runs/mine --to=mine.npz --format=npz --weights=average
"""


def make_parser() -> Parser:
    """The flags."""
    parser = Parser("convert", EXAMPLES, __doc__, old={"--from": "--model"})
    add_model(parser)
    parser.add_argument("--to", required=True, help="what to write; must not exist")
    parser.add_argument("--format", required=True, choices=("npz", "hf", "timm", "orbax"), help="of --to")
    parser.add_argument("--report", action="store_true", help="a line for every tensor")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Runs the verb; returns the exit code."""
    flags = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
    from etils import epath

    from vit_jax.cards.facts import of_loaded, write_card
    from vit_jax.convert.adapt import format_report
    from vit_jax.convert.load import load, parse_overrides
    from vit_jax.convert.open import describe_settings
    from vit_jax.convert.save import save_model
    from vit_jax.models.build import count_params

    loaded = load(flags.model, **{"weights": flags.weights, **parse_overrides(flags.set)})
    print(f"{flags.model} ({loaded.source.format}), {count_params(loaded.params):,} parameters")
    print(describe_settings(loaded.settings))
    print(format_report(loaded.report, every_leaf=flags.report))
    for file in save_model(loaded, flags.to, flags.format):
        print(f"wrote {file}")
    if flags.format != "npz":
        folder = epath.Path(flags.to).expanduser()
        print(f"wrote {write_card(folder, of_loaded(loaded, folder.name, flags.format, flags.weights))}")
    if flags.format == "npz":
        print("the npz has no place for settings: keep the .json beside it")
    return 0
