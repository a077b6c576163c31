"""`prepare_data.py --check`: data sets on disk, damage, and the next action for the others."""

import shutil
from pathlib import Path

import generated
import pytest

from vit_jax.cli.prepare import main
from vit_jax.data.prepare import fingerprints, prepare
from vit_jax.data.prepare.check import KNOWN, check
from vit_jax.data.vtab.tasks import TASKS


def test_a_data_set_that_is_whole_is_ready_and_its_images_decode(tfds_dir):
    finding = check("digits", tfds_dir)
    assert finding.state == "ready"
    assert "digits/1.0.0, ArrayRecord, test 360, train 1,437" in finding.detail
    assert finding.detail.endswith("; 10 images decoded, checksums as published and recorded")
    assert finding.action == ""


def test_what_is_missing_says_where_it_was_looked_for_and_the_one_command(tmp_path):
    for name, action in {
        "cifar10": "vit_jax prepare cifar10",
        "fashion_mnist": "--source=FOLDER of its four idx files",
        "digits": "nothing: it is prepared on first use",
        "imagenet2012": "fetch image-net.org: ILSVRC2012",
        "vtab/clevr_dist": "vit_jax prepare clevr",
        "imagenet21k": "licensed to those who register",
        "cifar11": "did you mean cifar10",
    }.items():
        finding = check(name, str(tmp_path))
        assert finding.state == "missing", name
        assert action in finding.action, finding
    assert str(tmp_path) in check("cifar10", str(tmp_path)).detail


@pytest.mark.parametrize("name", ["dsprites", "vtab/camelyon", "sun397/tfds", "dmlab", "cifar10"])
def test_a_package_that_preparing_needs_is_named_with_the_command(name, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    package = {"dsprites": "h5py", "vtab/camelyon": "h5py", "cifar10": ""}.get(name, "tensorflow")
    action = check(name, str(tmp_path)).action
    assert action.startswith(f"pip install {package} " if package else "vit_jax prepare cifar10")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert "pip" not in check(name, str(tmp_path)).action


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


def test_one_data_set_that_cannot_be_checked_does_not_hide_the_others(tfds_dir, monkeypatch, capsys):
    def surprise(*_):
        raise KeyError("unheard of")

    monkeypatch.setattr(fingerprints, "compare", surprise)
    assert main(["--check", "digits", "cifar10", f"--data-dir={tfds_dir}"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("digits   wrong    cannot be checked: KeyError: 'unheard of'")
    assert lines[3].startswith("cifar10  missing")


def test_one_builder_that_fails_unforeseen_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    real = prepare._make_builder

    def surprise(name, data_dir):
        if name == "cifar10":
            raise KeyError("unheard of")
        return real(name, data_dir)

    monkeypatch.setattr(prepare, "_make_builder", surprise)
    assert main(["cifar10", "digits", f"--data-dir={tmp_path}"]) == 2
    said = capsys.readouterr()
    assert "error: cifar10: unexpected KeyError: 'unheard of'" in said.err
    assert said.out.startswith("digits/1.0.0 prepared: train 1,437, test 360")


PAGE = b"\n<!DOCTYPE html><html>quota exceeded</html>"


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("extra/dtd.tar.gz", PAGE),
        ("manual/dtd-r1.0.1.tar.gz", PAGE),
        ("dtd/robots.ox.ac.uk_vgg_data_dtd-r1.0.1XCq0.tar.gz", b"<HTML><head>"),
        ("dtd/data.zip", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>'),
        ("dtd/train_32x32.mat", PAGE),
        ("dtd/arrays.npz", b'{"error": "not found"}'),
        ("dtd/ucexport_download_id_137RyRjvTBkBiIfeYBNZBtViDHQ6_Ewsp", b"\xef\xbb\xbf<!doctype html>"),
        ("dtd/deepmind_raw.tmp.0123/file.hdf5", PAGE),
    ],
)
def test_a_hosts_error_page_in_place_of_an_archive_is_recognised(path, data, tmp_path):
    file = tmp_path / "downloads" / path
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    assert check("dtd", str(tmp_path)).action.startswith(f"{file} is a web page and no archive")


@pytest.mark.parametrize(
    "path", ["extracted/TAR/note.zip", "clevr/CLEVR.zip", "dtd/a.zip.INFO.json", "dtd/list.xml", "manual/deep/x.zip"]
)
def test_pages_that_belong_there_or_to_another_data_set_are_no_obstacle(path, tmp_path):
    file = tmp_path / "downloads" / path
    file.parent.mkdir(parents=True)
    file.write_bytes(PAGE)
    assert check("dtd", str(tmp_path)).action.startswith("vit_jax prepare dtd")


def test_every_data_set_of_vtab_is_on_the_list():
    assert {task.dataset for task in TASKS.values()} <= set(KNOWN)


@pytest.mark.parametrize("name", ["clevr", "vtab/clevr_count"])
def test_labels_that_only_a_task_has_are_no_obstacle(name, tmp_path, monkeypatch):
    monkeypatch.setitem(KNOWN, "clevr", KNOWN["clevr"]._replace(splits={"train": 3}))
    generated.prepare("clevr", tmp_path, {"train": 3}, lambda e, s, i: e.update(objects=[], question_answer=[]))
    assert check(name, str(tmp_path)).state == "ready"
