"""VTAB-1k: 19 tasks through TFDS's own builders on generated data, and labels computed by hand."""

import generated
import numpy as np
import pytest
from vtab_examples import amend

from vit_jax.data.image.decode import decode
from vit_jax.data.image.recipes import make_transform
from vit_jax.data.open import open_source
from vit_jax.data.stream.loader import eval_batches
from vit_jax.data.vtab import tasks as vtab
from vit_jax.types import UserError

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


EXPECTED = {
    "clevr_count": lambda i: i % 8,
    "clevr_dist": lambda i: 1,
    "dsprites_loc": lambda i: (i % 32) // 2,
    "dsprites_ori": lambda i: int((i % 40) / 2.5),
    "kitti": lambda i: 1 if 9 + i <= 20 else 2,
    "smallnorb_azim": lambda i: i % 18,
    "smallnorb_elev": lambda i: i % 9,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Every data set of the table, a few dozen examples a split."""
    folder = tmp_path_factory.mktemp("vtab")
    for name in sorted({task.dataset for task in vtab.TASKS.values()}):
        splits = {"train": 24, "test": 24, "validation": 24}
        generated.prepare(name, folder, splits, amend(name))
    return str(folder)


@pytest.fixture
def small(monkeypatch):
    """The table with splits that fit the generated data."""
    for name, task in vtab.TASKS.items():
        base = {"val200": task.val200.split("[")[0], "test": task.test.split("[")[0]}
        tiny = {"train800": "train[:8]", "val200": f"{base['val200']}[10:12]", "test": f"{base['test']}[12:]"}
        monkeypatch.setitem(vtab.TASKS, name, task._replace(**tiny))


@pytest.mark.parametrize("name", vtab.TASKS)
def test_every_task_is_read_through_its_real_builder(name, prepared, small):
    source = open_source(f"vtab/{name}", "train800val200", prepared)
    task = vtab.TASKS[name]
    assert (len(source), source.spec.num_classes, len(source.spec.class_names)) == (10, task.classes, task.classes)
    batches = list(eval_batches(source, make_transform("eval", (16, 16)), batch_size=10, max_corrupt=0))
    assert [batch.mask.sum() for batch in batches] == [10]
    assert batches[0].image.shape == (10, 16, 16, 3)
    assert batches[0].target.max() < task.classes
    if task.dataset == "dsprites":
        image = source.decode(source.read(0)[0])
        assert set(np.unique(image)) == {0, 255}
        assert np.unique(decode(source.read(0)[0])).tolist() == [0, 1]
    assert len(open_source(f"vtab/{name}", "test", prepared)) == 12


def test_labels_of_a_whole_split_are_the_computed_ones(prepared, monkeypatch):
    for name, expected in EXPECTED.items():
        monkeypatch.setitem(vtab.TASKS, name, vtab.TASKS[name]._replace(train800="train", val200="train[:1]"))
        source = open_source(f"vtab/{name}", "train800", prepared)
        found = sorted(label for _, label, _ in source.read_many(range(24)))
        assert found == sorted(expected(i) for i in range(24)), name


def test_a_damaged_record_is_a_corrupt_image_by_name(tmp_path, monkeypatch):
    generated.prepare("dtd", tmp_path, {"train": 6, "test": 2, "validation": 2})
    monkeypatch.setitem(vtab.TASKS, "dtd", vtab.TASKS["dtd"]._replace(train800="train"))
    whole = open_source("vtab/dtd", "train800", str(tmp_path)).read_many(range(6))
    (shard,) = tmp_path.glob("dtd/*/dtd-train.array_record*")
    content = bytearray(shard.read_bytes())
    content[content.index(whole[3][0][40:80])] ^= 1  # in the middle of the fourth picture
    shard.write_bytes(content)
    found = open_source("vtab/dtd", "train800", str(tmp_path)).read_many(range(6))
    assert found[3] == (b"", 0, "vtab/dtd:train800#3")
    assert [found[i] for i in (0, 1, 2, 4, 5)] == [whole[i] for i in (0, 1, 2, 4, 5)]


def test_another_version_is_said(prepared, small, caplog):
    open_source("vtab/kitti", "test", prepared)
    assert "kitti 3.3.0; the benchmark pins 3.1.0" in caplog.text
    caplog.clear()
    open_source("vtab/dtd", "test", prepared)
    assert caplog.text == ""


def test_mistakes_name_the_right_thing(prepared):
    with pytest.raises(UserError, match=r"no VTAB task 'eurosad'; did you mean 'eurosat'\?"):
        open_source("vtab/eurosad", "test", prepared)
    with pytest.raises(
        UserError, match="VTAB's splits are train800, val200, train800val200, trainval1000, test; found 'train'"
    ):
        open_source("vtab/dtd", "train", prepared)
    with pytest.raises(UserError, match=r"takes no example|cannot read split"):
        open_source("vtab/svhn", "val200", prepared)  # 24 examples have no 65,931st


def test_a_task_that_is_not_prepared_says_how(tmp_path):
    with pytest.raises(UserError, match=r"vit_jax prepare dtd"):
        open_source("vtab/dtd", "test", str(tmp_path))
