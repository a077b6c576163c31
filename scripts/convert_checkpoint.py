"""Converts a checkpoint: `python scripts/convert_checkpoint.py --from=PATH --to=PATH --format=npz|hf|timm|orbax`.

    python scripts/convert_checkpoint.py --from=ViT-B_16.npz --to=vit_b16_hf --format=hf
    python scripts/convert_checkpoint.py --from=runs/mine --to=mine.npz --format=npz --set weights=average

`--from` is an npz or safetensors file, a Hugging Face or timm folder, a workdir of ours, or a released model
(`augreg:B/16`). `--set key=value` gives what the file cannot tell or what should be otherwise: `num_heads=3`, `grid=4,6`,
`resolution=384,384` (resizes the positions), `gelu=erf`, `num_classes=0` (leaves the head). Every tensor is accounted for.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vit_jax.flags import add_set
from vit_jax.process import first_paragraph, reports_user_errors


@reports_user_errors
def main() -> int:
    """Runs; returns the exit code."""
    parser = argparse.ArgumentParser(description=first_paragraph(__doc__), allow_abbrev=False)
    parser.add_argument("--from", required=True, dest="source", help="what to read")
    parser.add_argument("--to", required=True, help="what to write; must not exist")
    parser.add_argument("--format", required=True, choices=("npz", "hf", "timm", "orbax"))
    add_set(parser)
    parser.add_argument("--report", action="store_true", help="a line for every tensor")
    flags = parser.parse_args()
    from vit_jax.convert.adapt import format_report
    from vit_jax.convert.load import load, parse_overrides
    from vit_jax.convert.open import describe_settings
    from vit_jax.convert.save import save_model
    from vit_jax.models.build import count_params

    loaded = load(flags.source, **parse_overrides(flags.set))
    print(f"{flags.source} ({loaded.source.format}), {count_params(loaded.params):,} parameters")
    print(describe_settings(loaded.settings))
    print(format_report(loaded.report, every_leaf=flags.report))
    for file in save_model(loaded, flags.to, flags.format):
        print(f"wrote {file}")
    if flags.format == "npz":
        print("the npz has no place for settings: keep the .json beside it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
