"""The ImageNet pack: the validation set and six related test sets, each scored by its own protocol."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from vit_jax.evals.scorecard import Scorecard
from vit_jax.types import UserError

NUM_CLASSES = 1000  # in the order of their WordNet ids, as TFDS and the released checkpoints number them


class Member(NamedTuple):
    """One set of a pack.

    Args:
      title: its name in tables.
      dataset, split, recipe: see `Scorecard`.
    """

    title: str
    dataset: str
    split: str
    recipe: Literal["eval", "objectnet"] = "eval"


PACKS: dict[str, dict[str, Member]] = {
    "imagenet": {
        "val": Member("ImageNet", "imagenet2012", "validation"),
        "real": Member("ImageNet ReaL", "imagenet2012_real", "validation"),  # arXiv 2006.07159
        "v2": Member("ImageNet V2", "imagenet_v2/matched-frequency", "test"),  # arXiv 1902.10811
        "a": Member("ImageNet-A", "imagenet_a", "test"),  # arXiv 1907.07174; 200 classes compete
        "r": Member("ImageNet-R", "imagenet_r", "test"),  # arXiv 2006.16241; 200 classes compete
        "sketch": Member("ImageNet-Sketch", "imagenet_sketch", "test"),  # arXiv 1905.13549
        "objectnet": Member("ObjectNet", "objectnet", "test", "objectnet"),
    }
}


def open_pack(name: str, num_classes: int, **options: Any) -> tuple[dict[str, Scorecard], dict[str, str]]:
    """Opens every set of a pack.

    Args:
      name: a key of PACKS.
      num_classes: outputs of the model.
      **options: options of every `Scorecard`: data_dir, resolution, batch_size, ...

    Returns:
      ({set: evaluator}, {set that cannot be opened: the missing data, and the command that supplies it}).

    Raises:
      UserError: the model's classes are not ImageNet's.
    """
    if num_classes != NUM_CLASSES:
        raise UserError(
            f"the {name} pack scores the {NUM_CLASSES:,} classes of ImageNet and the model has {num_classes:,}; fine-tune it to "
            "imagenet2012 first (configs/finetune.py)"
        )
    ready: dict[str, Scorecard] = {}
    missing: dict[str, str] = {}
    for key, member in PACKS[name].items():
        evaluator = Scorecard(dataset=member.dataset, split=member.split, recipe=member.recipe, **options)
        try:
            evaluator.open()
            evaluator.check_head(num_classes)
        except UserError as error:
            missing[key] = str(error)
            continue
        ready[key] = evaluator
    return ready, missing
