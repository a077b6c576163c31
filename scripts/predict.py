"""Classifies images with a checkpoint of any format: the five best classes of each, with their probabilities.

    python scripts/predict.py --model=runs/mine cat.jpg dog.jpg
    python scripts/predict.py --model=imagenet21k+imagenet2012:B/16 --json photos

Of a folder, all images in it and below are classified. Images are squashed to the resolution that the model's positions were
trained at (224 for a ResNet), as in evaluation. Files that cannot be read are named at the end; the exit code is 2 if none can.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vit_jax.flags import add_set
from vit_jax.process import first_paragraph, prepare_process, reports_user_errors
from vit_jax.types import UserError, itemize, printable


@reports_user_errors
def main() -> int:
    """Runs; returns the exit code."""
    parser = argparse.ArgumentParser(description=first_paragraph(__doc__), allow_abbrev=False)
    parser.add_argument("--model", required=True, help="checkpoint: file, folder, workdir or released name")
    parser.add_argument("--weights", choices=("raw", "average"), default="raw", help="of a workdir of ours")
    add_set(parser)
    parser.add_argument("--json", action="store_true", help="one line of JSON per image")
    parser.add_argument("paths", nargs="+", help="images, and folders of images")
    flags = parser.parse_args()
    prepare_process()
    from vit_jax.convert.load import parse_overrides
    from vit_jax.predict import classify

    unread, read = [], 0
    for file, classes, error in classify(flags.model, flags.paths, weights=flags.weights, **parse_overrides(flags.set)):
        if error:
            unread.append(f"{file}: {error}")
            continue
        read += 1
        if flags.json:
            print(json.dumps({"file": file, "classes": [(name, round(share, 4)) for name, share in classes]}))
        else:
            print(printable(f"{file}: " + ", ".join(f"{name} {share:.1%}" for name, share in classes)))
    if unread:
        said = f"{len(unread)} of {len(unread) + read} files cannot be read as images:\n{itemize(unread)}"
        if not read:
            raise UserError(said)
        print(said, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
