"""Flags that several programs share, worded once. Imports nothing heavy: `--help` answers at once."""

from __future__ import annotations

import argparse

SET_HELP = (
    "what the checkpoint cannot say or what should be otherwise; repeatable. num_heads=3 and grid=4,6 (patches of its "
    "positions) where the file does not say; resolution=384,384 resizes the positions, by resize=bicubic; channels=1; "
    "weights=average of a run of ours; num_classes=0 leaves the head; gelu=erf, norm_eps=1e-6, dtype=bfloat16, "
    "pool=unpooled or any other field of the model"
)


def add_set(parser: argparse.ArgumentParser) -> None:
    """Adds `--set KEY=VALUE`, which `convert.load.parse_overrides` reads."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=SET_HELP)
