"""A task's split through TFDS's own builders: its examples, its labels and its mistakes."""

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
