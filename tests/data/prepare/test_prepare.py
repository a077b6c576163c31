"""Preparing data: idx files into TFDS's own fashion_mnist, bad files, interruptions, and missing packages that TFDS needs."""

import socket
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from idx_files import IMAGES, LABELS, write_idx

from vit_jax.data.image.decode import decode
from vit_jax.data.open import open_source
from vit_jax.data.prepare import idx, prepare
from vit_jax.types import UserError

COMMAND = [sys.executable, "-m", "vit_jax", "prepare"]


@pytest.fixture
def idx_folder(tmp_path):
    return write_idx(tmp_path / "idx")


def refuse(*arguments):
    with pytest.raises(UserError) as error:
        prepare.prepare(*arguments)
    return str(error.value)


def test_idx_files_become_tfds_own_fashion_mnist(idx_folder, tmp_path):
    result = prepare.prepare("fashion_mnist", str(idx_folder), str(tmp_path / "out"))
    assert result.name == "fashion_mnist/3.0.1"
    assert result.splits == {"train": 20, "test": 6}
    assert not result.existed
    assert any("20 examples; the published fashion_mnist has 60000" in note for note in result.notes)
    source = open_source("fashion_mnist", "train", str(tmp_path / "out"))
    assert source.spec.class_names[0] == "T-shirt/top"
    assert source.spec.class_names[9] == "Ankle boot"
    assert source.spec.image_shape == (28, 28, 1)


def test_the_order_on_disk_is_that_of_tfds_for_its_integer_keys(idx_folder, tmp_path):
    from tensorflow_datasets.core import hashing

    prepare.prepare("fashion_mnist", str(idx_folder), str(tmp_path / "out"))
    source = open_source("fashion_mnist", "train", str(tmp_path / "out"))
    order = sorted(range(20), key=hashing.Hasher("train").hash_key)
    assert order != list(range(20))
    for place, key in enumerate(order):
        data, label, _ = source.read(place)
        assert np.array_equal(decode(data)[..., 0], IMAGES["train"][key])
        assert label == LABELS["train"][key]


@pytest.mark.slow
def test_preparing_twice_says_what_is_already_there(idx_folder, tmp_path):
    command = [*COMMAND, "mnist", f"--source={idx_folder}", f"--data-dir={tmp_path / 'out'}"]
    first, second = (subprocess.run(command, capture_output=True, text=True, timeout=120) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert first.stdout.startswith("mnist/3.0.1 prepared: train 20, test 6; in ")
    assert first.stderr == ""
    assert second.stdout.startswith("mnist/3.0.1 was already prepared: train 20, test 6; in ")


def test_the_script_prints_one_line_and_exits_with_2_on_a_user_error(tmp_path):
    command = [*COMMAND, "fashion_mnist", "--source=/nowhere", f"--data-dir={tmp_path}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert result.stderr.startswith("error: --source=/nowhere: expected the files train-images-idx3-ubyte")
    assert "Traceback" not in result.stderr


def test_an_interrupted_preparation_does_not_look_prepared(idx_folder, tmp_path, monkeypatch):
    generate = idx._generate

    def interrupted(split):
        for count, example in enumerate(generate(split)):
            if count == 3:
                raise KeyboardInterrupt
            yield example

    monkeypatch.setattr(idx, "_generate", interrupted)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare("fashion_mnist", str(idx_folder), str(out))
    (out / "fashion_mnist" / "incomplete.ABCDEF_3.0.1").mkdir(parents=True)  # what `kill -9` leaves
    with pytest.raises(UserError, match="fashion_mnist is not prepared"):
        open_source("fashion_mnist", "train", str(out))
    monkeypatch.undo()
    assert not prepare.prepare("fashion_mnist", str(idx_folder), str(out)).existed


def test_missing_files_are_all_named(idx_folder, tmp_path):
    (idx_folder / "t10k-labels-idx1-ubyte").unlink()
    (idx_folder / "train-images-idx3-ubyte.gz").unlink()
    message = refuse("kmnist", str(idx_folder), str(tmp_path))
    assert "expected the files train-images-idx3-ubyte, t10k-labels-idx1-ubyte (or with .gz)" in message


def stock_failure(monkeypatch, name, error, tmp_path):
    builder = prepare._make_builder(name, str(tmp_path))

    def fail(**_):
        raise error

    monkeypatch.setattr(builder, "download_and_prepare", fail)
    monkeypatch.setattr(prepare, "_make_builder", lambda *_: builder)
    monkeypatch.setattr(prepare, "_check_network", lambda *_: None)
    return refuse(name, "", str(tmp_path))


def test_stock_preparation_without_tensorflow_says_what_to_install(monkeypatch, tmp_path):
    error = RuntimeError("Error while extracting x.tar.gz: No module named 'tensorflow'")
    message = stock_failure(monkeypatch, "cifar10", error, tmp_path)
    assert "pip install tensorflow" in message
    assert str(tmp_path / "cifar10" / "3.0.2") in message


def test_stock_preparation_without_another_package_names_it(monkeypatch, tmp_path):
    error = ModuleNotFoundError("No module named 'scipy'", name="scipy")
    assert "pip install scipy" in stock_failure(monkeypatch, "svhn_cropped", error, tmp_path)


def test_an_archive_that_is_none_points_to_the_check_that_names_it(monkeypatch, tmp_path):
    error = RuntimeError("Error while extracting dtd.tar.gz")
    error.__cause__ = tarfile.ReadError("file could not be opened successfully")
    message = stock_failure(monkeypatch, "dtd", error, tmp_path)
    assert "an archive of dtd is damaged or not an archive" in message
    assert "--check dtd" in message


def test_stock_preparation_without_network_fails_at_once(monkeypatch, tmp_path):
    def no_names(*_):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_names)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    message = refuse("kmnist", "", str(tmp_path))
    assert "kmnist could not be downloaded" in message
    assert "kmnist --source=FOLDER" in message


def test_data_that_has_to_be_fetched_by_hand_says_where_to_put_it(tmp_path):
    message = refuse("imagenet2012", "", str(tmp_path))
    assert "ILSVRC2012_img_train.tar" in message
    assert str(tmp_path / "downloads" / "manual") in message


def test_no_permission_and_no_room_say_what_to_set(monkeypatch, tmp_path):
    assert "TFDS_DATA_DIR" in stock_failure(monkeypatch, "cifar10", PermissionError(13, "Permission denied"), tmp_path)
    assert "no room to prepare" in stock_failure(monkeypatch, "cifar10", OSError(28, "No space left"), tmp_path)


def test_an_unknown_name_offers_the_nearest(tmp_path):
    assert "fashion_mnist" in refuse("fashion-mnist", "", str(tmp_path))
