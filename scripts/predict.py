"""Classifies image files with a checkpoint of any format: the five best classes of each, with their probabilities.

    python scripts/predict.py --model=runs/mine cat.jpg dog.jpg
    python scripts/predict.py --model=imagenet21k+imagenet2012:B/16 --json photos/*.jpg

Images are squashed to the resolution that the model's positions were trained at (224 for a ResNet), as in evaluation.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vit_jax.process import first_paragraph, prepare_process, reports_user_errors
from vit_jax.types import UserError


def predict(
    model: str, files: list[str], *, weights: str = "raw", overrides: list[str] | None = None, top: int = 5
) -> list[dict[str, Any]]:
    """[{file, classes: [(name, probability), ...]}] of each file, best class first.

    Raises:
      UserError: a file that is no image, or a model without a trained head.
    """
    import jax
    import numpy as np

    from vit_jax.convert.load import check_head, load, parse_overrides, resolution_of
    from vit_jax.data import ops
    from vit_jax.data.preprocess import make_transform
    from vit_jax.models.build import make_forward

    images, errors = [], []
    for file in files:
        try:
            images.append(ops.decode(Path(file).read_bytes()))
        except (OSError, ValueError) as error:
            errors.append(f"  {file}: {type(error).__name__}: {str(error).partition(' <')[0]}")
    if errors:
        raise UserError("these files cannot be read as images:\n" + "\n".join(errors))
    options = {"channels": 3, **parse_overrides(overrides or [])}
    loaded = load(model, weights=weights, stored_pixels=True, **options)
    check_head(loaded)
    transform = make_transform("eval", resolution_of(loaded))
    names = loaded.source.meta.get("class_names") or []
    forward = jax.jit(make_forward(loaded.module))
    found = []
    for file, image in zip(files, images, strict=True):
        logits = forward(loaded.params, transform(image, np.random.default_rng(0))[None]).logits[0]
        shares = np.asarray(jax.nn.softmax(logits))
        best = np.argsort(-shares)[:top]
        classes = [(names[i] if i < len(names) else f"class {i}", round(float(shares[i]), 4)) for i in best]
        found.append({"file": file, "classes": classes})
    return found


@reports_user_errors
def main() -> int:
    """Runs; returns the exit code."""
    parser = argparse.ArgumentParser(description=first_paragraph(__doc__), allow_abbrev=False)
    parser.add_argument("--model", required=True, help="checkpoint: file, folder, workdir or released name")
    parser.add_argument("--weights", choices=("raw", "average"), default="raw", help="of a workdir of ours")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as convert_checkpoint's")
    parser.add_argument("--json", action="store_true", help="one line of JSON per file")
    parser.add_argument("files", nargs="+", help="images")
    flags = parser.parse_args()
    prepare_process()
    found = predict(flags.model, flags.files, weights=flags.weights, overrides=flags.set)
    for entry in found:
        if flags.json:
            print(json.dumps(entry))
        else:
            print(f"{entry['file']}: " + ", ".join(f"{name} {share:.1%}" for name, share in entry["classes"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
