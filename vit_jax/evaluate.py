"""Scores a checkpoint on a data set, or on ImageNet and its six related test sets, for notebooks and `vit_jax evaluate`."""

from __future__ import annotations

import sys
from typing import Any

from vit_jax import partition
from vit_jax.convert.load import Loaded, check_head, fit_head, load, resolution_of
from vit_jax.evals.base import Bound
from vit_jax.evals.imagenet import PACKS, open_pack
from vit_jax.evals.scorecard import Scorecard
from vit_jax.models.build import make_forward
from vit_jax.types import UserError, nearest, printable


def evaluate(
    model: str,
    dataset: str = "",
    split: str = "",
    *,
    pack: str = "",
    data_dir: str = "",
    resolution: int = 0,
    recipe: Any = "eval",
    exif: Any = "apply",
    likelihood: Any = "softmax",
    bootstrap: int = 1000,
    batch_size: int = 64,
    **overrides: Any,
) -> dict[str, Any]:
    """Measures top-1, top-5, likelihood and calibration, counting every example once. Notes go to standard error.

    Args:
      model: see `load_model`.
      dataset: TFDS name, image folder, or objectnet.
      split: in TFDS's syntax.
      pack: `imagenet` instead of a data set scores the validation set and six related test sets.
      data_dir: folder of the TFDS data sets.
      resolution: pixels per side; 0 for the checkpoint's own.
      recipe: how images are prepared, `eval` or `eval_crop`; in a pack each set has its own recipe.
      exif: `ignore` leaves photographs as stored.
      likelihood: how scores become probabilities, `softmax` or `sigmoid`.
      bootstrap: resamples for the 95% intervals; 0 for none.
      batch_size: images per step, over all devices.
      **overrides: see `load_model`.

    Returns:
      {model, resolution, likelihood, dataset, split, scores...}; for a pack {..., pack, sets: {name: scores}, missing: {...}}.

    Raises:
      UserError: data or checkpoint is missing, or the head was never trained or has another number of classes.
    """
    if pack and pack not in PACKS:
        raise UserError(f"no pack {pack!r}; {nearest(pack, PACKS)}")
    size = (resolution, resolution) if resolution else None
    loaded = load(model, stored_pixels=True, **{"channels": 3, "resolution": size, **overrides})
    check_head(loaded)
    mesh = partition.make_mesh(1)
    partition.check_batch_size(batch_size, mesh, path="--batch")
    options = {
        "data_dir": data_dir,
        "resolution": size or resolution_of(loaded),
        "batch_size": batch_size,
        "bootstrap": bootstrap,
        "likelihood": likelihood,
        "exif": exif,
    }
    num_classes = loaded.settings["num_classes"]
    missing: dict[str, str] = {}
    if pack:
        evaluators, missing = open_pack(pack, num_classes, **options)
        for name in missing:
            print(f"{name} is missing; the reason follows at the end", file=sys.stderr)
    else:
        evaluators = {"": Scorecard(dataset=dataset, split=split, recipe=recipe, **options)}
        evaluators[""].open()
        evaluators[""].check_head(num_classes)
    scores = _score(loaded, evaluators, mesh, missing if pack else None)
    named = {"model": model, "resolution": list(options["resolution"]), "likelihood": likelihood}
    if not pack:
        return {**named, "dataset": dataset, "split": split, **scores[""]}
    for name, reason in missing.items():
        print(f"{name} is left out: {reason}", file=sys.stderr)
    return {**named, "pack": pack, "sets": scores, "missing": missing}


def _score(
    loaded: Loaded, evaluators: dict[str, Any], mesh: Any, missing: dict[str, str] | None
) -> dict[str, dict[str, float]]:
    """Returns the scores by evaluator. An evaluator's error goes to `missing`, or is raised if `missing` is None."""
    heads = {
        name: fit_head(loaded, evaluator.spec.class_names, evaluator.spec.name)
        for name, evaluator in evaluators.items()
    }
    for note in dict.fromkeys(note for note in (*adapted(loaded), *(note for _, note in heads.values())) if note):
        print(printable(f"note: {note}"), file=sys.stderr)
    bound = Bound(make_forward(loaded.module), None, mesh, loaded.settings["num_classes"])
    scores = {}
    for name, evaluator in evaluators.items():
        params = partition.put_tree(heads[name][0], partition.param_sharding(heads[name][0], mesh))
        try:
            scores[name] = evaluator.bind(bound)(params).values
        except UserError as error:  # too many images that do not decode
            if missing is None:
                raise
            missing[name] = str(error)
    return scores


def adapted(loaded: Loaded) -> list[str]:
    """One line for each change or assumption made to score a checkpoint."""
    what = {"channels": "first layer: ", "resized": "positions: ", "assumed": "assumed: "}
    return [what[fate.action] + fate.detail.partition(", from ")[0] for fate in loaded.report if fate.action in what]
