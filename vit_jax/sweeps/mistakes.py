"""The wrong predictions with the highest confidence, as small images for a person to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from vit_jax.data.open import open_source
from vit_jax.run.record import write_json
from vit_jax.sweeps.results import MISTAKES_DIR, PREDICTIONS_FILE

NUM_MISTAKES = 12
SIDE = 192  # pixels of the longer side


def worst_mistakes(predictions: dict[str, np.ndarray], num: int = NUM_MISTAKES) -> np.ndarray:
    """Rows of the wrong predictions with the highest confidence, highest first; the earlier example if confidences are equal.

    Args:
      predictions: label, predicted and confidence, each (n,).
      num: number of rows.
    """
    wrong = np.flatnonzero(predictions["predicted"] != predictions["label"])
    return wrong[np.argsort(-predictions["confidence"][wrong], kind="stable")][:num]


def write_mistakes(folder: Path, scored: dict[str, Any]) -> None:
    """Writes a run's worst mistakes as PNG files with a list of them, if the run kept its predictions.

    Args:
      folder: the run's folder.
      scored: the evaluator's config section: dataset, split, data_dir.
    """
    file, to = folder / PREDICTIONS_FILE, folder / MISTAKES_DIR
    if not file.exists():
        return
    with np.load(file) as stored:
        predictions = dict(stored)
    source = open_source(scored["dataset"], scored["split"], scored["data_dir"])
    to.mkdir(exist_ok=True)
    listed = []
    for number, row in enumerate(worst_mistakes(predictions)):
        index = int(predictions["index"][row])
        data, _, name = source.read(index)
        image = source.decode(data)
        longer = max(image.shape[:2])
        if longer > SIDE:
            h, w = (max(1, round(side * SIDE / longer)) for side in image.shape[:2])
            image = np.asarray(PIL.Image.fromarray(image).resize((w, h), PIL.Image.Resampling.BOX))
        PIL.Image.fromarray(image).save(to / f"{number:02d}.png")
        listed.append(
            {
                "file": f"{number:02d}.png",
                "index": index,
                "label": int(predictions["label"][row]),
                "predicted": int(predictions["predicted"][row]),
                "confidence": round(float(predictions["confidence"][row]), 4),
                "name": name,
            }
        )
    write_json(to / "mistakes.json", listed)
