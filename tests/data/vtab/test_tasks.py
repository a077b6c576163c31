"""VTAB-1k: the table of its 19 tasks, and labels computed by hand."""

import numpy as np
import pytest

from vit_jax.data.vtab import tasks as vtab

# From the benchmark's definition: group sizes, classes, and test splits that are not "test".
GROUPS = {"natural": 7, "specialized": 4, "structured": 8}
CLASSES = [102, 100, 47, 102, 37, 397, 10, 2, 10, 45, 5, 8, 6, 6, 16, 16, 4, 18, 9]
TITLES = [
    *("Caltech101", "CIFAR-100", "DTD", "Flowers102", "Pets", "Sun397", "SVHN"),
    *("Camelyon", "EuroSAT", "Resisc45", "Retinopathy"),
    *("Clevr-Count", "Clevr-Dist", "DMLab", "dSpr-Loc", "dSpr-Ori", "KITTI-Dist", "sNORB-Azim", "sNORB-Elev"),
]


def test_the_table_is_the_benchmarks():
    tasks = list(vtab.TASKS.values())
    assert [task.title for task in tasks] == TITLES
    assert [task.classes for task in tasks] == CLASSES
    assert {group: sum(task.group == group for task in tasks) for group in GROUPS} == GROUPS
    assert {task.train800 for task in tasks} == {"train[:800]"}
    assert {name: task.test for name, task in vtab.TASKS.items() if task.test != "test"} == {
        "eurosat": "train[21600:]",
        "resisc45": "train[25200:]",
        "clevr_count": "validation",
        "clevr_dist": "validation",
        "dsprites_loc": "train[663552:]",
        "dsprites_ori": "train[663552:]",
        "smallnorb_azim": "test[50%:]",
        "smallnorb_elev": "test[50%:]",
    }
    assert vtab.stored_split(vtab.TASKS["dtd"], "train800val200") == "train[:800]+validation[:200]"
    # What the benchmark's script calls trainval.
    trainval = {name: vtab.stored_split(task, vtab.FIRST_1000) for name, task in vtab.TASKS.items()}
    assert {name for name, split in trainval.items() if split == "train"} == {
        *("caltech101", "cifar100", "pets", "svhn", "clevr_count", "clevr_dist")
    }
    assert {name for name, split in trainval.items() if split == "train+validation"} == {
        *("dtd", "flowers102", "sun397", "camelyon", "retinopathy", "dmlab", "kitti")
    }
    assert trainval["eurosat"] == "train[:21600]"  # of 27,000: 60% and 20%
    assert trainval["resisc45"] == "train[:25200]"  # of 31,500
    assert trainval["dsprites_loc"] == trainval["dsprites_ori"] == "train[:663552]"  # of 737,280: 80% and 10%
    assert trainval["smallnorb_azim"] == trainval["smallnorb_elev"] == "train+test[:50%]"


@pytest.mark.parametrize(("depth", "label"), [(8.0, 0), (8.001, 1), (8.5, 1), (9.0, 2), (9.5, 3), (10.0, 4), (10.1, 5)])
def test_clevr_distance_is_the_nearest_objects_bin(depth, label):
    objects = {"pixel_coords": np.float32([[200, 100, 12.0], [10, 20, depth]]), "size": [0, 1]}
    assert vtab.clevr_distance({"objects": objects}) == label


def test_clevr_count_starts_at_three():
    assert [vtab.clevr_count({"objects": {"size": [0] * n}}) for n in (3, 10)] == [0, 7]


@pytest.mark.parametrize(
    ("types", "z", "label"),
    [
        ([0], [8.0], 0),
        ([0, 2], [30.0, 8.1], 1),
        ([1], [20.0], 1),
        ([2], [20.5], 2),
        ([3, 7], [2.0, 5.0], 3),  # a pedestrian and a tram are no vehicles here
        ([], [], 3),
    ],
)
def test_kitti_distance_is_the_nearest_cars_vans_or_trucks(types, z, label):
    location = np.float32([[1.0, 2.0, depth] for depth in z]).reshape(-1, 3)
    assert vtab.kitti_distance({"objects": {"type": np.array(types), "location": location}}) == label


def test_dsprites_bins():
    assert [vtab.dsprites_location({"label_x_position": i}) for i in (0, 1, 2, 31)] == [0, 0, 1, 15]
    found = [vtab.dsprites_orientation({"label_orientation": i}) for i in range(40)]
    # 2.5 labels a bin: 3, 2, 3, 2, ...
    assert found == [bin_ for bin_ in range(16) for _ in range(3 if bin_ % 2 == 0 else 2)]
