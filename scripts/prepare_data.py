"""Prepares a data set for training: `python scripts/prepare_data.py NAME [--source=FOLDER] [--data-dir=DIR]`.

digits                          scikit-learn's handwritten digits; nothing to download
fashion_mnist, mnist, kmnist    from local idx files: --source=/usr/share/datasets/fashion-mnist
any TFDS name                   by TFDS itself: wants a network, and for most data sets TensorFlow
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from vit_jax.data import prepare
from vit_jax.types import UserError


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, or 2 after printing what the user should do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="digits, fashion_mnist, ... or any TFDS name such as eurosat/rgb")
    parser.add_argument("--source", default="", help="folder of idx files, or of files fetched by hand")
    parser.add_argument("--data-dir", default="", help="where to (default: $TFDS_DATA_DIR or ~/tensorflow_datasets)")
    args = parser.parse_args(argv)
    try:
        result = prepare.prepare(args.name, args.source, args.data_dir)
    except UserError as error:
        print(f"prepare_data: {error}", file=sys.stderr)
        return 2
    counts = ", ".join(f"{split} {count:,}" for split, count in result.splits.items())
    print(f"{result.name} {'was already prepared' if result.existed else 'prepared'}: {counts}; in {result.folder}")
    for note in result.notes:
        print(f"note: {note}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
