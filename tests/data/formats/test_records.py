"""TFDS data sets: reading, pickling, splits, and messages about a missing one."""

import json
import pickle
import shutil
import subprocess
import sys

import pytest
from tensorflow_datasets.core import read_only_builder

from vit_jax.data.formats.records import find_builder
from vit_jax.data.image.decode import decode
from vit_jax.data.image.recipes import make_transform
from vit_jax.data.open import open_source
from vit_jax.data.stream.loader import eval_batches
from vit_jax.types import UserError


def refuse(dataset, split, data_dir):
    with pytest.raises(UserError) as error:
        open_source(dataset, split, str(data_dir))
    return str(error.value)


def test_reading_one_and_reading_many_agree_and_decode(tfds_dir):
    source = open_source("digits", "test", tfds_dir)
    assert source.read_many([5, 3, 359]) == [source.read(5), source.read(3), source.read(359)]
    data, label, name = source.read(3)
    assert decode(data).shape == (8, 8, 3)
    assert label in range(10)
    assert name == "digits:test#3"


def test_sub_splits_are_slices_of_the_stored_order(tfds_dir):
    whole = open_source("digits", "train", tfds_dir)
    part = open_source("digits", "train[10%:20%]+test[:7]", tfds_dir)
    assert len(part) == part.spec.num_examples == 287 - 144 + 7
    assert part.read(0)[:2] == whole.read(144)[:2]
    assert part.read(143)[:2] == open_source("digits", "test", tfds_dir).read(0)[:2]


def test_a_source_survives_pickling_as_a_few_hundred_bytes(tfds_dir):
    source = open_source("digits", "train", tfds_dir)
    data = pickle.dumps(source)
    assert len(data) < 1500
    copy = pickle.loads(data)
    assert copy.spec == source.spec
    assert copy.read(1436) == source.read(1436)


def test_versions_are_understood_and_a_missing_one_says_what_is_there(tfds_dir):
    assert len(open_source("digits:1.0.0", "test", tfds_dir)) == 360
    message = refuse("digits:2.0.0", "test", tfds_dir)
    assert "found digits/1.0.0" in message


def test_the_default_folder_is_tfds_data_dir(tfds_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", tfds_dir)
    assert open_source("digits", "test").folder.startswith(tfds_dir)


def test_a_data_set_that_is_not_prepared_names_the_folder_and_the_command(tmp_path, monkeypatch):
    message = refuse("cifar10", "train", tmp_path)
    assert f"no cifar10 in {tmp_path}" in message
    assert f"`vit_jax prepare cifar10 --data-dir={tmp_path}`" in message
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert "`vit_jax prepare eurosat/rgb`" in refuse("eurosat/rgb", "train", "")


@pytest.mark.parametrize("name", ["jft_300m", "imagenet21k"])
def test_private_data_sets_say_that_the_data_is_the_users_own(name, tmp_path):
    message = refuse(name, "train", tmp_path)
    assert "your own" in message
    assert str(tmp_path / name) in message
    assert "--config.data.dataset" in message


def test_a_private_data_set_is_read_where_tfds_metadata_is_there(tfds_dir, tmp_path):
    shutil.copytree(f"{tfds_dir}/digits", tmp_path / "imagenet21k")
    version = tmp_path / "imagenet21k" / "1.0.0"
    info = json.loads((version / "dataset_info.json").read_text())
    (version / "dataset_info.json").write_text(json.dumps({**info, "name": "imagenet21k"}))
    for path in list(version.glob("digits-*")):
        path.rename(version / path.name.replace("digits-", "imagenet21k-"))
    assert len(open_source("imagenet21k", "test[:10]", str(tmp_path))) == 10


def test_an_unknown_split_lists_the_splits_with_their_sizes(tfds_dir):
    message = refuse("digits", "validation", tfds_dir)
    assert "Unknown split 'validation'" in message
    assert "train (1,437)" in message
    assert "test (360)" in message


def test_tfrecord_says_how_to_convert(tfds_dir, tmp_path):
    shutil.copytree(f"{tfds_dir}/digits", tmp_path / "digits")
    path = tmp_path / "digits" / "1.0.0" / "dataset_info.json"
    path.write_text(path.read_text().replace("array_record", "tfrecord"))
    message = refuse("digits", "train", tmp_path)
    assert "stored as TFRecord" in message
    assert "tfds convert_format" in message
    assert "vit_jax prepare digits --data-dir=OTHER" in message


def test_a_data_set_without_image_and_label_is_refused(tfds_dir, tmp_path):
    shutil.copytree(f"{tfds_dir}/digits", tmp_path / "digits")
    path = tmp_path / "digits" / "1.0.0" / "features.json"
    path.write_text(path.read_text().replace('"label"', '"number"'))
    info = tmp_path / "digits" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace('"label"', '"nothing"'))
    assert "expected features `image` (Image) and `label` (ClassLabel)" in refuse("digits", "train", tmp_path)


def test_a_process_that_has_run_out_of_examples_reads_an_empty_batch(tfds_dir):
    source = open_source("digits", "test[:5]", tfds_dir)
    shares = [
        list(eval_batches(source, make_transform("eval", (8, 8)), batch_size=16, process_index=i, process_count=2))
        for i in range(2)
    ]
    assert [[int(batch.mask.sum()) for batch in batches] for batches in shares] == [[5], [0]]


@pytest.mark.slow
def test_the_newest_version_is_read_without_importing_every_builder_of_tfds(tfds_dir, tmp_path, monkeypatch):
    shutil.copytree(f"{tfds_dir}/digits/1.0.0", tmp_path / "digits" / "1.0.0")
    for version in ("1.0.2", "1.0.10"):  # as text, 1.0.2 would be the later one
        shutil.copytree(f"{tfds_dir}/digits/1.0.0", tmp_path / "digits" / version)
        info = tmp_path / "digits" / version / "dataset_info.json"
        info.write_text(info.read_text().replace('"version": "1.0.0"', f'"version": "{version}"'))
    (tmp_path / "digits" / "incomplete.AB12_1.0.11").mkdir()
    script = (
        "import sys; from vit_jax.data.formats.records import find_builder;"
        f"print(find_builder('digits', {str(tmp_path)!r}).version, 'tensorflow_datasets.text' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed == "1.0.10 False\n"
    asked = []
    monkeypatch.setattr(read_only_builder, "builder_from_files", lambda name, data_dir: asked.append(name))
    find_builder("digits", str(tmp_path))
    find_builder("digits:1.0.2", str(tmp_path))
    (tmp_path / "digits" / "other_config" / "1.0.0").mkdir(parents=True)  # TFDS has to say which config is the default
    find_builder("digits", str(tmp_path))
    assert asked == ["digits:1.0.10", "digits:1.0.2", "digits"]
