"""VTAB's examples by id: written from prepared data, found again in data of another order, and refused where one is missing."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import generated
import numpy as np
import PIL.Image
import pytest
from vtab_numbered import COUNTS, numbered, picture

from vit_jax.data.formats.records import open_builder
from vit_jax.data.open import open_source
from vit_jax.data.vtab import example_ids, split_ids
from vit_jax.data.vtab import tasks as vtab
from vit_jax.types import UserError

ROOT = Path(__file__).resolve().parents[3]


def prepare_all(folder, shift, step):
    for name in sorted({task.dataset for task in vtab.TASKS.values()}):
        generated.prepare(name, folder, COUNTS, numbered(shift, step))
    return str(folder)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return prepare_all(tmp_path_factory.mktemp("here"), 0, 1)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """The same examples in another order: TFDS's is a hash of the generator's running number."""
    return prepare_all(tmp_path_factory.mktemp("elsewhere"), 5, 7)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The table with splits that fit the generated data."""
    for name, task in vtab.TASKS.items():
        test = task.test if "[" not in task.test else f"{task.test.split('[')[0]}[12:]"
        tiny = {"train800": "train[:8]", "val200": f"{task.val200.split('[')[0]}[10:12]", "test": test}
        tiny["trainval"] = re.sub(r"\[.*", "[:12]", task.trainval)
        monkeypatch.setitem(vtab.TASKS, name, task._replace(**tiny))


@pytest.fixture
def exported(here, tmp_path):
    return split_ids.export([], str(tmp_path / "ids.json"), here)[0]


@pytest.fixture
def imported(exported, elsewhere):
    """`elsewhere` with the ids of `here` put in place."""
    placed, unchecked = split_ids.place(exported.path, elsewhere)
    assert unchecked == []
    yield placed
    Path(placed.path).unlink()


def contents(source):
    return [(bytes(data), label) for data, label, _ in source.read_many(range(len(source)))]


@pytest.mark.slow
@pytest.mark.parametrize("name", vtab.TASKS)
def test_the_same_examples_are_taken_from_data_of_another_order(name, here, elsewhere, imported, caplog):
    for split, count in (("train800", 8), ("val200", 2), ("train800val200", 10)):
        original, found = (open_source(f"vtab/{name}", split, folder) for folder in (here, elsewhere))
        assert len(found) == found.spec.num_examples == count
        assert contents(found) == contents(original)
        assert found.read(1)[:2] == original.read(1)[:2]
        assert found.spec.split == f"{split} (ids of vtab_split_ids.json, sha256 {imported.sha256[:16]})"
    original, found = (open_source(f"vtab/{name}", "test", folder) for folder in (here, elsewhere))
    assert set(contents(original)) == set(contents(found))
    caplog.clear()
    open_source(f"vtab/{name}", "train800", elsewhere)
    assert caplog.text == ""  # the version no longer decides


@pytest.mark.slow
@pytest.mark.parametrize("name", vtab.TASKS)
def test_the_light_protocols_thousand_are_found_by_id_too(name, here, elsewhere, imported):
    original, found = (open_source(f"vtab/{name}", vtab.FIRST_1000, folder) for folder in (here, elsewhere))
    assert contents(found) == contents(original)
    assert found.spec.split.startswith("trainval1000 (ids of ")
    pictures = [np.asarray(PIL.Image.open(io.BytesIO(data))) for data, *_ in original.read_many(range(len(original)))]
    splits = [list(COUNTS)[int(pixels[0, 0, 1])] for pixels in pictures]
    # 16 of each in turn, of the 24 or 12 examples that the task has there.
    expected = {
        "train+validation": ["train"] * 16 + ["validation"] * 16 + ["train"] * 8 + ["validation"] * 8,
        "train+test[:12]": ["train"] * 16 + ["test"] * 12 + ["train"] * 8,
        "train[:12]": ["train"] * 12,
        "train": ["train"] * 24,
    }
    assert splits == expected[vtab.TASKS[name].trainval]


@pytest.mark.slow
def test_a_file_without_the_light_protocols_thousand_serves_where_the_order_is_the_benchmarks(
    exported, here, elsewhere
):
    change_file(exported, lambda task: task.pop("trainval1000"))
    ids = split_ids.read(exported.path)
    task = vtab.TASKS["dtd"].dataset
    assert split_ids.locate(open_builder(task, here), "vtab/dtd", vtab.FIRST_1000, ids) is None
    with pytest.raises(UserError, match=r"does not list trainval1000, the examples of protocol=light, and this dtd/"):
        split_ids.locate(open_builder(task, elsewhere), "vtab/dtd", vtab.FIRST_1000, ids)


@pytest.mark.slow
def test_without_the_file_the_order_decides(here, elsewhere):
    original, found = (open_source("vtab/cifar100", "train800", folder) for folder in (here, elsewhere))
    assert found.spec.split == "train800"
    assert contents(found) != contents(original)


@pytest.mark.slow
def test_ids_are_the_names_that_the_data_sets_give(exported):
    lists = exported.tasks
    assert set(lists) == set(vtab.TASKS)
    assert set(lists["dtd"]["train800"]) < {f"train_{i:03d}" for i in range(24)}
    assert set(lists["dtd"]["val200"]) < {f"validation_{i:03d}" for i in range(24)}
    assert set(lists["caltech101"]["test"]) == {f"{('accordion', 'airplanes')[i % 2]}/test_{i:03d}" for i in range(24)}
    assert set(lists["smallnorb_azim"]["val200"]) < {f"four-legged animals/1/{i // 6}/{i % 6}/5" for i in range(24)}
    assert lists["dsprites_loc"]["train800"] == lists["dsprites_ori"]["train800"]
    # Only where an order, or Caltech101's draw, decides what the test split is.
    slices = {"caltech101", "eurosat", "resisc45", "dsprites_loc", "dsprites_ori", "smallnorb_azim", "smallnorb_elev"}
    assert {name for name in lists if "test" in lists[name]} == slices
    assert example_ids.KEYS.keys() == {task.dataset for task in vtab.TASKS.values()}


def change_file(exported, change, task="dtd"):
    content = json.loads(Path(exported.path).read_text())
    change(content["tasks"][task])
    Path(exported.path).write_text(json.dumps(content))
    return exported.path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t["train800"].__setitem__(slice(0, 3), ["a", "b", "c"]),
            r"3 of 8 are not in the prepared data \(a, b, c",
        ),
        (lambda t: t["train800"].pop(), "lists 7 ids as train800, expected 8"),
        (lambda t: t["val200"].__setitem__(0, t["train800"][0]), "dtd lists 1 ids more than once"),
        (lambda t: t.pop("val200"), "dtd lists train800, trainval1000, expected train800, val200"),
        (lambda t: t["trainval1000"].append(t["trainval1000"][0]), "dtd lists 1 ids more than once in trainval1000"),
        (lambda t: t["trainval1000"].pop(), "lists 47 ids as trainval1000, expected 48"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_not_put_in_place(change, message, exported, elsewhere):
    with pytest.raises(UserError, match=message):
        split_ids.place(change_file(exported, change), elsewhere)
    assert not (Path(elsewhere) / split_ids.FILE).exists()


def test_an_id_of_two_examples_is_that_of_its_own_split_or_refused(tmp_path):
    def same_names(example, split, index):
        example["image"], example["label"] = picture(split, index), 0
        example["file_name"] = "twice" if index < 2 else f"{index:03d}"

    builder = generated.prepare("dtd", tmp_path, COUNTS, same_names)
    names = example_ids.ids_of(builder, "dtd", "train")
    unique = [n for n in names if n != "twice"]
    lists = {"train800": unique[:8], "val200": unique[8:10]}
    ids = split_ids.SplitIds("f.json", "0" * 64, {"dtd": lists})
    stored, places = split_ids.locate(builder, "vtab/dtd", "train800val200", ids)
    order = stored.split("+")
    assert order == ["test", "train", "validation"]
    assert [place // 24 for place in places] == [order.index("train")] * 8 + [order.index("validation")] * 2
    lists["train800"] = [*unique[:7], "twice"]
    with pytest.raises(UserError, match=r"1 of 8 name more than one prepared example \(twice\)"):
        split_ids.locate(builder, "vtab/dtd", "train800", ids)


@pytest.mark.slow
def test_a_test_split_that_holds_what_is_trained_on_is_refused(exported, elsewhere):
    path = change_file(exported, lambda task: task.pop("test"), "eurosat")
    with pytest.raises(UserError, match=r"of the examples that .* lie in train\[12:\] of this eurosat/rgb/2.0.0"):
        split_ids.place(path, elsewhere)


@pytest.mark.slow
def test_the_file_may_lie_elsewhere_and_other_tasks_are_as_stored(exported, elsewhere, here, monkeypatch):
    monkeypatch.setenv("VTAB_SPLIT_IDS", exported.path)
    assert "sha256" in open_source("vtab/dtd", "val200", elsewhere).spec.split
    content = json.loads(Path(exported.path).read_text())
    del content["tasks"]["dtd"]
    Path(exported.path).write_text(json.dumps(content))
    assert open_source("vtab/dtd", "val200", elsewhere).spec.split == "val200"
    monkeypatch.setenv("VTAB_SPLIT_IDS", "/nowhere.json")
    with pytest.raises(UserError, match=r"cannot read the ids of VTAB's examples: /nowhere\.json"):
        open_source("vtab/dtd", "val200", elsewhere)


LIST_OF_NUMBERS = json.dumps({"format": split_ids.FORMAT, "tasks": {"dtd": {"train800": [1], "val200": []}}})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other", "tasks": {}}', LIST_OF_NUMBERS])
def test_another_kind_of_file_is_refused(text, tmp_path):
    (tmp_path / "ids.json").write_text(text)
    with pytest.raises(UserError, match=r"ids\.json"):
        split_ids.read(str(tmp_path / "ids.json"))


def run_script(*arguments):
    command = [sys.executable, "-m", "vit_jax", "prepare", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_the_script_says_what_is_missing(tmp_path):
    done = run_script("--split-ids=export", f"--to={tmp_path / 'ids.json'}", f"--data-dir={tmp_path}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "none of VTAB's data sets is prepared" in done.stderr
    assert "--split-ids=import wants --source=FILE" in run_script("--split-ids=import").stderr
    with pytest.raises(UserError, match="dtd is not prepared"):
        split_ids.export(["vtab/dtd"], str(tmp_path / "ids.json"), str(tmp_path))


@pytest.mark.slow
def test_the_script_imports_what_it_can_check(exported, tmp_path):
    done = run_script("--split-ids=import", f"--source={exported.path}", f"--data-dir={tmp_path / 'data'}")
    assert done.returncode == 0, done.stderr
    assert (
        f"ids in {tmp_path / 'data' / 'vtab_split_ids.json'} (sha256 {exported.sha256[:16]}): caltech101 48, "
        in done.stdout
    )
    assert "not checked, since not prepared: caltech101, cifar100, dtd" in done.stdout
