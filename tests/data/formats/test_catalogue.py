"""Names of data sets before any is opened: where their data lies, and what an unknown one is answered."""

import pytest

from vit_jax.data.formats.catalogue import find_data_dir, is_known, tfrecord_message, unknown_name_message
from vit_jax.data.open import open_source
from vit_jax.types import UserError


def refuse(dataset, split, data_dir):
    with pytest.raises(UserError) as error:
        open_source(dataset, split, str(data_dir))
    return str(error.value)


def test_an_unknown_name_offers_the_nearest(tmp_path):
    assert "cifar10" in refuse("cifar_10", "train", tmp_path)
    assert "digits" in refuse("digit", "train", tmp_path)
    assert "neither a TFDS data set" in refuse("two words", "train", tmp_path)


def test_data_lies_where_the_user_says_else_where_tfds_looks_for_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("TFDS_DATA_DIR", "~/elsewhere")
    assert find_data_dir("~/mine") == "/home/ann/mine"
    assert find_data_dir() == "/home/ann/elsewhere"
    monkeypatch.setenv("TFDS_DATA_DIR", "")  # as a shell exports a variable that is not set
    assert find_data_dir() == "/home/ann/tensorflow_datasets"
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert find_data_dir() == "/home/ann/tensorflow_datasets"
    assert find_data_dir("gs://bucket/data") == "gs://bucket/data"


def test_a_name_is_known_with_its_config_and_its_version_and_without():
    for name in ("cifar10", "cifar10:3.0.2", "eurosat/rgb", "imagenet_v2/matched-frequency:3.0.0", "digits"):
        assert is_known(name), name
    for name in ("cifar", "CIFAR10", "rgb/eurosat", "", "imagenet21k"):
        assert not is_known(name), name


def test_capitals_and_what_follows_the_name_do_not_hide_the_nearest():
    assert "did you mean cifar10" in unknown_name_message("CIFAR10")
    assert "did you mean eurosat" in unknown_name_message("eurosatt/rgb:2.0.0")
    assert "its catalogue is https://www.tensorflow.org/datasets" in unknown_name_message("qqqqqqqqqqqqqqqqqqqq")


def test_what_is_read_as_distributed_says_where_it_comes_from():
    message = unknown_name_message("objectnet")
    assert "needs no preparation: unpack objectnet-1.0.zip from https://objectnet.dev" in message


def test_tfrecords_are_answered_with_both_commands_that_help():
    message = tfrecord_message("imagenet_v2/topimages/3.0.0", "/data/imagenet_v2/topimages/3.0.0")
    place = "--dataset_version_dir=/data/imagenet_v2/topimages/3.0.0"
    assert f"`tfds convert_format {place} --out_file_format=array_record`" in message
    assert "`vit_jax prepare imagenet_v2 --data-dir=OTHER`" in message
