"""VTAB-1k: the 19 tasks, each a TFDS data set, a label, and its splits (arXiv 1910.04867; labels and splits as the
benchmark's own code has them). `vtab/TASK` names one wherever a data set is named.

`train800` and `val200` are the first examples of the train and validation parts in the order TFDS wrote them, so they are
the benchmark's only for data prepared by the version in the table; another version is opened, with a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from vit_jax.types import UserError, nearest

Group = Literal["natural", "specialized", "structured"]
# How an image may be changed without changing its label (the protocol of arXiv 2106.04560's transfers): resized with a
# random crop and flip, cropped without flip, flipped without crop, or neither.
Augmentation = Literal["crop_flip", "crop", "flip", "none"]

CLEVR_DISTANCES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
KITTI_DISTANCES = (-100.0, 8.0, 20.0, 999.0)
KITTI_VEHICLES = 3  # types 0, 1, 2: Car, Van, Truck
NO_VEHICLE = 1000.0


def bin_of(value: float, thresholds: Sequence[float]) -> int:
    """The last bin whose lower threshold lies below the value: bins are open below and closed above."""
    return int(np.max(np.flatnonzero(np.asarray(thresholds) < value)))


def clevr_count(example: Mapping[str, Any]) -> int:
    """3 to 10 objects are labels 0 to 7."""
    return len(example["objects"]["size"]) - 3


def clevr_distance(example: Mapping[str, Any]) -> int:
    """The nearest object's depth, in six bins."""
    return bin_of(float(np.min(np.asarray(example["objects"]["pixel_coords"])[:, 2])), CLEVR_DISTANCES)


def kitti_distance(example: Mapping[str, Any]) -> int:
    """The nearest vehicle's distance: to 8 m, to 20 m, farther, none."""
    objects = example["objects"]
    z = np.asarray(objects["location"], np.float32).reshape(-1, 3)[:, 2]
    vehicles = z[np.asarray(objects["type"]).reshape(-1) < KITTI_VEHICLES]
    return bin_of(min([*map(float, vehicles), NO_VEHICLE]), KITTI_DISTANCES)


def dsprites_location(example: Mapping[str, Any]) -> int:
    """32 horizontal positions in 16 bins."""
    return int(np.floor(np.float32(example["label_x_position"]) / np.float32(2.0)))


def dsprites_orientation(example: Mapping[str, Any]) -> int:
    """40 orientations in 16 bins of 3, 2, 3, 2, ... of them."""
    return int(np.floor(np.float32(example["label_orientation"]) / np.float32(2.5)))


class Task(NamedTuple):
    """One of the 19.

    Args:
      group: of three, which the paper averages apart.
      title: as table 9 of arXiv 2010.11929 prints it.
      dataset: TFDS name and config.
      version: of the builder, as the benchmark pins it; `3.*.*` is any of major version 3.
      classes: number of labels.
      label: the feature that is the label, or a function of the example.
      trainval, train800, val200, test: splits in TFDS's syntax; trainval is the benchmark's training and validation part.
      augmentation: what training may do to an image.
    """

    group: Group
    title: str
    dataset: str
    version: str
    classes: int
    label: str | Callable[[Mapping[str, Any]], int]
    trainval: str
    train800: str
    val200: str
    test: str
    augmentation: Augmentation


def _task(
    group, title, dataset, version, classes, trainval, val200, test="test", *, label="label", aug="crop_flip"
) -> Task:
    return Task(group, title, dataset, version, classes, label, trainval, "train[:800]", val200, test, aug)


# In the order of table 9 of arXiv 2010.11929.
TASKS = {
    "caltech101": _task("natural", "Caltech101", "caltech101", "3.*.*", 102, "train", "train[2754:2954]"),
    "cifar100": _task("natural", "CIFAR-100", "cifar100", "3.*.*", 100, "train", "train[45000:45200]"),
    "dtd": _task("natural", "DTD", "dtd", "3.*.*", 47, "train+validation", "validation[:200]"),
    "flowers102": _task(
        "natural", "Flowers102", "oxford_flowers102", "2.*.*", 102, "train+validation", "validation[:200]"
    ),
    "pets": _task("natural", "Pets", "oxford_iiit_pet", "3.*.*", 37, "train", "train[2944:3144]"),
    "sun397": _task("natural", "Sun397", "sun397/tfds", "4.*.*", 397, "train+validation", "validation[:200]"),
    "svhn": _task("natural", "SVHN", "svhn_cropped", "3.*.*", 10, "train", "train[65931:66131]"),
    "camelyon": _task("specialized", "Camelyon", "patch_camelyon", "2.*.*", 2, "train+validation", "validation[:200]"),
    "eurosat": _task(
        "specialized", "EuroSAT", "eurosat/rgb", "2.*.*", 10, "train[:21600]", "train[16200:16400]", "train[21600:]"
    ),
    "resisc45": _task(
        "specialized", "Resisc45", "resisc45", "3.*.*", 45, "train[:25200]", "train[18900:19100]", "train[25200:]"
    ),
    "retinopathy": _task(
        "specialized",
        "Retinopathy",
        "diabetic_retinopathy_detection/btgraham-300",
        "3.*.*",
        5,
        "train+validation",
        "validation[:200]",
    ),
    # CLEVR's own test split has no annotations: its validation split is scored.
    "clevr_count": _task(
        "structured",
        "Clevr-Count",
        "clevr",
        "3.*.*",
        8,
        "train",
        "train[63000:63200]",
        "validation",
        label=clevr_count,
        aug="flip",
    ),
    "clevr_dist": _task(
        "structured",
        "Clevr-Dist",
        "clevr",
        "3.*.*",
        6,
        "train",
        "train[63000:63200]",
        "validation",
        label=clevr_distance,
        aug="flip",
    ),
    "dmlab": _task("structured", "DMLab", "dmlab", "2.0.1", 6, "train+validation", "validation[:200]", aug="flip"),
    "dsprites_loc": _task(
        "structured",
        "dSpr-Loc",
        "dsprites",
        "2.*.*",
        16,
        "train[:663552]",
        "train[589824:590024]",
        "train[663552:]",
        label=dsprites_location,
        aug="none",
    ),
    "dsprites_ori": _task(
        "structured",
        "dSpr-Ori",
        "dsprites",
        "2.*.*",
        16,
        "train[:663552]",
        "train[589824:590024]",
        "train[663552:]",
        label=dsprites_orientation,
        aug="crop",
    ),
    "kitti": _task(
        "structured",
        "KITTI-Dist",
        "kitti",
        "3.1.0",
        4,
        "train+validation",
        "validation[:200]",
        label=kitti_distance,
        aug="flip",
    ),
    "smallnorb_azim": _task(
        "structured",
        "sNORB-Azim",
        "smallnorb",
        "2.*.*",
        18,
        "train+test[:50%]",
        "test[:200]",
        "test[50%:]",
        label="label_azimuth",
        aug="crop",
    ),
    "smallnorb_elev": _task(
        "structured",
        "sNORB-Elev",
        "smallnorb",
        "2.*.*",
        9,
        "train+test[:50%]",
        "test[:200]",
        "test[50%:]",
        label="label_elevation",
    ),
}
PREFIX = "vtab/"
# The benchmark's own script trains on the first 1,000 images of `trainval` in the order in which TFDS reads its files.
FIRST_1000 = "trainval1000"
SPLITS = ("train800", "val200", "train800val200", FIRST_1000, "test")


def find_task(dataset: str) -> Task:
    """The task of a `vtab/TASK` name.

    Raises:
      UserError: no such task; names the nearest.
    """
    name = dataset.removeprefix(PREFIX)
    if name not in TASKS:
        raise UserError(f"no VTAB task {name!r}; {nearest(name, TASKS)}")
    return TASKS[name]


def stored_split(task: Task, split: str) -> str:
    """A task's split in terms of its data set's: `train800val200` -> `train[:800]+validation[:200]`. Of FIRST_1000, it is the
    split whose first 1,000 examples, as TFDS reads it, are meant.

    Raises:
      UserError: not one of SPLITS.
    """
    stored = {
        "train800": task.train800,
        "val200": task.val200,
        "train800val200": f"{task.train800}+{task.val200}",
        FIRST_1000: task.trainval,
        "test": task.test,
    }
    if split not in stored:
        raise UserError(f"VTAB's splits are {', '.join(SPLITS)}; found {split!r}")
    return stored[split]
