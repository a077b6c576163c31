"""The door of the data room: from a data set's name and split to a random-access source of encoded images."""

from __future__ import annotations

import os
from collections.abc import Callable

from etils import epath

from vit_jax.data.formats.catalogue import OWN_BUILDERS, PRIVATE, find_data_dir
from vit_jax.data.formats.coco import is_coco, open_coco
from vit_jax.data.formats.folders import open_folder
from vit_jax.data.formats.held_out import is_part, open_part
from vit_jax.data.formats.lists import is_list, open_list
from vit_jax.data.formats.objectnet import is_objectnet, open_objectnet
from vit_jax.data.formats.objects import open_tfds
from vit_jax.data.formats.records import find_builder, open_packed
from vit_jax.data.formats.shards import open_shards
from vit_jax.data.formats.tarnames import is_shards, names_shards
from vit_jax.data.prepare.packed import is_packed
from vit_jax.data.prepare.prepare import prepare
from vit_jax.data.source import Source
from vit_jax.data.vtab.source import open_task
from vit_jax.data.vtab.tasks import PREFIX
from vit_jax.targets import Boxes, ClassSet, Values
from vit_jax.types import UserError

# Formats from outside: {prefix: function from the rest of the data set's name, and a split, to a source} (docs/extend.md).
FORMATS: dict[str, Callable[[str, str], Source]] = {}


def open_source(
    dataset: str,
    split: str,
    data_dir: str = "",
    *,
    multi_label: bool = False,
    values: bool = False,
    boxes: bool = False,
) -> Source:
    """Opens one split of a data set.

    Args:
      dataset: a list of `path,label` (.csv, .tsv, .txt); a folder that `data.prepare.pack` wrote, or one that contains
        train/<class>/*.jpg or <class>/*.jpg, or COCO's annotations/instances_*.json (an existing folder, or anything that starts
        like a path: `/`, `.`, `~`, `gs://`); tar shards (their folder, or `shards/train-{000..123}.tar`), a TFDS name: `cifar10`,
        `eurosat/rgb`, `cifar10:3.0.2`, `vtab/TASK`, or `objectnet`. `digits` ships with scikit-learn and is prepared on
        first use. `PREFIX:REST` is of the format that FORMATS has under that prefix.
      split: TFDS's syntax for both kinds: `train`, `train[:98%]`, `train[10%:]+test`. Of one's own images train_held_out is a
        tenth of train, by class, and train_kept the rest (see `data.formats.held_out`).
      data_dir: folder of TFDS's data sets; empty for $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      multi_label: whether the caller understands examples that have a set of labels (ImageNet ReaL, ObjectNet, a list of
        `path,labels`).
      values: whether the caller understands examples that have numbers (a list of `path,value:NAME`).
      boxes: whether the caller understands examples that have boxes.

    Returns:
      The source.

    Raises:
      UserError: it is missing, not prepared, not laid out as expected, or of label sets or boxes that the caller does not
        understand; the message says what to do.
    """
    source = _open(dataset, split, data_dir)
    if isinstance(source.spec.target, ClassSet) and not multi_label:
        raise UserError(
            f"{dataset}: its examples have sets of labels: expected one label an image here. Train on it with "
            "config.objective.name=sigmoid, and score it with an evaluator named multilabel or scorecard, or vit_jax evaluate"
        )
    if isinstance(source.spec.target, Values) and not values:
        raise UserError(
            f"{dataset}: its examples have numbers: expected one label an image here. Train on it with "
            "config.objective.name=regression, and score it with an evaluator named regression"
        )
    if isinstance(source.spec.target, Boxes) and not boxes:
        raise UserError(
            f"{dataset}: its examples have boxes of objects: expected one label an image here. Train a detector on it "
            "(configs/detection.py), and score it with an evaluator named detection"
        )
    return source


def check_trainable(dataset: str) -> None:
    """Refuses data whose licence keeps it for evaluation."""
    if not is_list(dataset) and is_objectnet(dataset):
        raise UserError(
            f"{dataset}: its licence forbids training on it; expected it in an evaluator named scorecard, or vit_jax evaluate"
        )


def _open(dataset: str, split: str, data_dir: str) -> Source:
    prefix, _, rest = dataset.partition(":")
    if prefix in FORMATS:
        return FORMATS[prefix](rest, split)
    if dataset.startswith(PREFIX) and not os.path.isdir(dataset):
        return open_task(dataset, split, data_dir)
    if not is_list(dataset) and is_objectnet(dataset):
        return open_objectnet(dataset, split, data_dir)
    open_own = _find_own(dataset, data_dir)
    if open_own is None:
        _prepare_own(dataset, data_dir)
        return open_tfds(dataset, split, data_dir)
    return open_part(dataset, split, open_own) if is_part(split) else open_own(dataset, split)


def _prepare_own(dataset: str, data_dir: str) -> None:
    """Prepares the digits, which need no download, unless that has been done."""
    root = find_data_dir(data_dir)
    if dataset.split(":")[0].split("/")[0] in OWN_BUILDERS and find_builder(dataset, root) is None:
        prepare(dataset, data_dir=root)


def _find_own(dataset: str, data_dir: str) -> Callable[[str, str], Source] | None:
    """The function that opens the user's own images of that name; None for a TFDS name."""
    if is_list(dataset):
        return open_list
    if is_packed(dataset):
        return open_packed
    if _is_folder(dataset, data_dir):
        if is_coco(dataset):
            return open_coco
        return open_shards if is_shards(dataset) else open_folder
    return None


def _is_folder(dataset: str, data_dir: str) -> bool:
    if names_shards(dataset) or dataset.startswith((".", "~", "/", "\\")) or "://" in dataset or os.path.isabs(dataset):
        return True
    if "/" not in dataset and "\\" not in dataset:
        # A bare name may also be a folder of prepared TFDS data (the command runs in ~/tensorflow_datasets).
        has_train = os.path.isdir(os.path.join(dataset, "train"))
        return os.path.isdir(dataset) and (has_train or not _is_tfds_name(dataset, data_dir))
    return os.path.isdir(dataset) or not _is_tfds_name(dataset, data_dir)  # data/flowers, eurosat/rgb


def _is_tfds_name(dataset: str, data_dir: str) -> bool:
    import tensorflow_datasets as tfds

    base = dataset.split(":")[0].split("/")[0]
    if base in (*OWN_BUILDERS, *PRIVATE) or (epath.Path(find_data_dir(data_dir)) / base).is_dir():
        return True
    return base in tfds.list_builders(with_community_datasets=False)
