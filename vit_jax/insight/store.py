"""Writes what `explain` measured: every array as npz, tables as CSV, facts as JSON; each file is replaced as a whole."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vit_jax.insight.explain import Explained
from vit_jax.types import UserError

ARRAYS, FACTS = "explain.npz", "explain.json"


def make_folder(to: Path) -> None:
    """Makes the folder of the results, so that a mistake shows before anything is measured.

    Raises:
      UserError: a file is in the way, or the folder cannot be made or written to.
    """
    try:
        to.mkdir(parents=True, exist_ok=True)
        (to / f".{FACTS}.partial").write_bytes(b"")
        (to / f".{FACTS}.partial").unlink()
    except OSError as error:
        raise UserError(f"results cannot be written to {to}: {error}; give another folder with --to") from error


def save(explained: Explained, to: Path) -> None:
    """Writes the files.

    Raises:
      UserError: the folder cannot be written to.
    """
    arrays, facts = explained
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
    files = {name: table.encode() for name, table in tables(explained).items()}
    described = json.dumps(facts | {"tables": sorted(files)}, indent=1) + "\n"
    files |= {ARRAYS: packed.getvalue(), FACTS: described.encode()}
    try:
        for name, data in files.items():
            partial = to / f".{name}.partial"
            partial.write_bytes(data)
            os.replace(partial, to / name)
    except OSError as error:
        raise UserError(f"results cannot be written to {to}: {error}; free space, or give another --to") from error


def tables(explained: Explained) -> dict[str, str]:
    """{file name: CSV} of the arrays that the model has; layers and heads are counted from 1."""
    arrays, facts = explained
    made = {
        "filters.csv": _table(
            ("component", "share_of_variance"), ((i + 1, x) for i, x in enumerate(arrays["filters_variance"]))
        )
    }
    if "distance" in arrays:
        rows = (
            (layer + 1, head + 1, x, arrays["entropy"][layer, head])
            for (layer, head), x in np.ndenumerate(arrays["distance"])
        )
        made["heads.csv"] = _table(("layer", "head", "distance_pixels", "entropy_nats"), rows)
    if "norms" in arrays:
        norms = ((i + 1, *row) for i, row in enumerate(arrays["norms"]))
        made["norms.csv"] = _table(("layer", *facts["norms"]), norms)
    if "cka" in arrays:
        pairs = ((i + 1, j + 1, x) for (i, j), x in np.ndenumerate(arrays["cka"]))
        made["cka.csv"] = _table(("layer", "other_layer", "cka"), pairs)
    if "probabilities" in arrays:
        columns = zip(facts["pictures"], facts["classes"], arrays["probabilities"], strict=True)
        made["pictures.csv"] = _table(("image", "class", "probability"), columns)
    if "boxes" in arrays:
        objects = (
            (facts["pictures"][i], facts["object_classes"][kind], arrays["box_scores"][i, q], *arrays["boxes"][i, q])
            for (i, q), kind in np.ndenumerate(arrays["box_classes"])
        )
        made["objects.csv"] = _table(("image", "class", "score", "left", "top", "right", "bottom"), objects)
    return made


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([float(f"{x:.7g}") if isinstance(x, np.floating) else x for x in row] for row in rows)
    return text.getvalue()
