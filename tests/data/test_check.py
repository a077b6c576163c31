"""`prepare_data.py --check`: what is on disk, what is wrong with it, and the next action for the rest."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import generated

from vit_jax.data.check import KNOWN, check
from vit_jax.data.vtab import TASKS


def test_a_data_set_that_is_whole_is_ready_and_its_images_decode(tfds_dir):
    finding = check("digits", tfds_dir)
    assert finding.state == "ready"
    assert "digits/1.0.0, ArrayRecord, test 360, train 1,437" in finding.detail
    assert finding.detail.endswith("; 10 images decoded")
    assert finding.action == ""


def test_what_is_missing_says_where_it_was_looked_for_and_the_one_command(tmp_path):
    for name, action in {
        "cifar10": "python scripts/prepare_data.py cifar10",
        "fashion_mnist": "--source=FOLDER of its four idx files",
        "digits": "nothing: it is prepared on first use",
        "imagenet2012": "fetch image-net.org: ILSVRC2012",
        "vtab/clevr_dist": "python scripts/prepare_data.py clevr",
        "imagenet21k": "licensed to those who register",
        "cifar11": "did you mean cifar10",
    }.items():
        finding = check(name, str(tmp_path))
        assert finding.state == "missing", name
        assert action in finding.action, finding
    assert str(tmp_path) in check("cifar10", str(tmp_path)).detail


def test_too_few_examples_are_wrong_and_so_is_a_damaged_file(tmp_path):
    generated.prepare("cifar10", tmp_path, {"train": 20, "test": 5})
    finding = check("cifar10", str(tmp_path))
    assert finding.state == "wrong"
    assert "test has 5 examples, expected 10,000; train has 20" in finding.detail or (
        "train has 20 examples, expected 50,000" in finding.detail
    )
    assert "prepare it again" in finding.action


def test_damage_is_found_without_reading_everything(tfds_dir, tmp_path):
    shutil.copytree(Path(tfds_dir) / "digits", tmp_path / "digits")
    (record,) = (tmp_path / "digits").rglob("*train.array_record*")
    content = bytearray(record.read_bytes())
    for at in range(len(content) // 4, len(content) * 3 // 4):
        content[at] ^= 0x5A
    record.write_bytes(content)
    finding = check("digits", str(tmp_path))
    assert finding.state == "wrong"
    assert "is damaged" in finding.detail


def test_a_hosts_error_page_in_place_of_an_archive_is_recognised(tmp_path):
    (tmp_path / "downloads" / "extra").mkdir(parents=True)
    (tmp_path / "downloads" / "extra" / "dtd.tar.gz").write_bytes(b"\n<!DOCTYPE html><html>quota exceeded</html>")
    finding = check("dtd", str(tmp_path))
    assert "dtd.tar.gz is a web page and no archive" in finding.action


def test_every_data_set_of_vtab_is_on_the_list():
    assert {task.dataset for task in TASKS.values()} <= set(KNOWN)


@pytest.mark.parametrize("name", ["clevr", "vtab/clevr_count"])
def test_labels_that_only_a_task_has_are_no_obstacle(name, tmp_path, monkeypatch):
    monkeypatch.setitem(KNOWN, "clevr", KNOWN["clevr"]._replace(splits={"train": 3}))
    generated.prepare("clevr", tmp_path, {"train": 3}, lambda e, s, i: e.update(objects=[], question_answer=[]))
    assert check(name, str(tmp_path)).state == "ready"
