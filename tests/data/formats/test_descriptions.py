"""Prepared data sets with a false description, missing files or code: each gives one error, and the code does not run."""

import contextlib
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vit_jax.data.formats.records import find_builder
from vit_jax.data.image.recipes import make_transform
from vit_jax.data.open import open_source
from vit_jax.data.prepare import check, prepare
from vit_jax.data.prepare.pack import pack
from vit_jax.data.stream.loader import train_batches
from vit_jax.types import UserError

ROOT = Path(__file__).parents[3]
IMAGE = "tensorflow_datasets.core.features.image_feature.Image"
CODE = """open("CANARY", "w").write("ran")
import tensorflow_datasets as tfds
class Image(tfds.features.Image):
    pass
"""


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A packed set of 12 training and 4 test images in two classes."""
    root, rng = tmp_path_factory.mktemp("good"), np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 2)):
        for label in "ab":
            (root / "images" / split / label).mkdir(parents=True)
            for i in range(count):
                PIL.Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).save(
                    root / "images" / split / label / f"{i}.png"
                )
    pack(str(root / "images"), str(root / "packed"))
    return root / "packed"


@pytest.fixture
def packed(good, tmp_path, monkeypatch):
    """A copy of it in the folder that the program runs in, as the README has it, with a module beside its files."""
    shutil.copytree(good, tmp_path / "packed")
    (tmp_path / "packed" / "evil.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # as `python -m` does
    yield tmp_path / "packed"
    assert not (tmp_path / "CANARY").exists(), "code of the data set ran"
    sys.modules.pop("packed.evil", None)


def edit(path, change):
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))


def refuse(dataset="packed", split="train", data_dir=""):
    with pytest.raises(UserError) as error:
        open_source(str(dataset), split, str(data_dir))
    return str(error.value)


def as_sequence(features):
    """The image's class stands in JSON that stands in a string."""
    inner = json.dumps({"feature": {"pythonClassName": "packed.evil.Image", "text": {}}, "length": None})
    name = "tensorflow_datasets.core.features.sequence_feature.Sequence"
    features["featuresDict"]["features"]["image"] = {"pythonClassName": name, "jsonFeature": {"json": inner}}


SPELLINGS = {
    "as TFDS writes it": lambda f: f["featuresDict"]["features"]["image"].update(pythonClassName="packed.evil.Image"),
    "as protocol buffers also read it": lambda f: f.update(
        python_class_name=f.pop("pythonClassName") and "packed.evil.Image"
    ),
    "as TFDS wrote it before": lambda f: {"type": "packed.evil.Image", "content": {}},
    "inside what TFDS wrote before": lambda f: {
        "type": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "content": {"image": {"type": "packed.evil.Image", "content": {}}},
    },
    "in JSON inside a string": as_sequence,
    "as a module of TFDS that it is not": lambda f: f.update(
        pythonClassName="tensorflow_datasets.core.features..evil.Image"
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_class_that_is_not_tfdss_own_is_refused_and_its_module_never_imported(packed, spelling):
    edit(packed / "features.json", SPELLINGS[spelling])
    message = refuse()
    assert re.search(
        r"packed/features.json names 'packed.evil.Image'|names 'tensorflow_datasets.core.features..evil", message
    )
    assert "expected TFDS's own features" in message


def test_the_older_spelling_of_tfdss_own_features_is_read(packed):
    features = {
        "image": {"type": IMAGE, "content": {"shape": [None, None, 3], "dtype": "uint8", "encoding_format": "png"}},
        "label": {
            "type": "tensorflow_datasets.core.features.class_label_feature.ClassLabel",
            "content": {"num_classes": 2},
        },
    }
    name = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    (packed / "features.json").write_text(json.dumps({"type": name, "content": features}))
    assert open_source("packed", "train").spec.class_names == ("a", "b")


def test_a_worker_refuses_what_was_changed_since_the_run_began(packed):
    pickled = pickle.dumps(open_source("packed", "train"))
    edit(packed / "features.json", SPELLINGS["as TFDS writes it"])
    with pytest.raises(UserError, match=r"names 'packed\.evil\.Image'"):
        pickle.loads(pickled)


def test_other_fields_that_name_modules_import_nothing(packed):
    def change(info):
        location = {"urls": ["file:///etc/passwd"]}
        info.update(moduleName="packed.evil", location=location, redistributionInfo={"license": "packed.evil"})

    edit(packed / "dataset_info.json", change)
    (packed / "metadata.json").write_text('{"module": "packed.evil"}')
    (packed / "packed.py").write_text(CODE)
    assert len(open_source("packed", "train")) == 12


def test_a_file_that_class_names_would_be_taken_from_is_not_read(packed):
    content = {"json": json.dumps({"names_file": "/dev/zero"})}
    name = "tensorflow_datasets.core.features.class_label_feature.ClassLabel"

    def change(features):
        features["featuresDict"]["features"]["label"] = {"pythonClassName": name, "jsonFeature": content}

    edit(packed / "features.json", change)
    assert "names '/dev/zero', which would be read" in refuse()


def test_prepared_sets_are_refused_by_their_names_too_and_before_they_are_prepared_again(tfds_dir, packed, tmp_path):
    shutil.copytree(Path(tfds_dir) / "digits", tmp_path / "tfds" / "digits")
    place = tmp_path / "tfds" / "digits" / "1.0.0"
    edit(place / "features.json", SPELLINGS["as TFDS writes it"])
    assert "names 'packed.evil.Image'" in refuse("digits", "train", tmp_path / "tfds")
    with pytest.raises(UserError, match=r"names 'packed\.evil\.Image'"):
        find_builder("digits", str(tmp_path / "tfds"))
    with pytest.raises(UserError, match=r"names 'packed\.evil\.Image'"):
        prepare.prepare("digits", data_dir=str(tmp_path / "tfds"))
    finding = check.check("digits", str(tmp_path / "tfds"))
    assert (finding.state, "packed.evil.Image" in finding.detail) == ("wrong", True)


@pytest.mark.slow
def test_a_run_on_a_folder_that_brings_code_ends_in_one_message(packed, tmp_path):
    edit(packed / "features.json", SPELLINGS["as TFDS writes it"])
    config = f"--config={ROOT / 'configs' / 'finetune.py'}:variant=Ti/16,dataset=packed,smoke"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "vit_jax.main", config, "--workdir=w"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 2, done.stderr
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "packed.evil.Image" in message
    assert "Traceback" not in done.stderr


def shard_of(packed, split="train"):
    (path,) = packed.glob(f"packed-{split}.array_record-*")
    return path


def test_a_shard_that_is_missing_no_file_or_of_other_length_is_found_when_it_is_opened(packed, tmp_path):
    shard = shard_of(packed)
    content = shard.read_bytes()
    shard.unlink()
    assert "is missing; dataset_info.json counts 12 examples in it" in refuse()
    shard.symlink_to(tmp_path / "gone")
    assert "gone" in refuse() or "No such file" in refuse()
    shard.unlink()
    os.mkfifo(shard)
    assert "is a named pipe; expected a regular file" in refuse()
    shard.unlink()
    shard.symlink_to("/dev/zero")
    assert "is a device; expected a regular file" in refuse()
    shard.unlink()
    shard.write_bytes(content[: len(content) // 2])
    assert f"{shard.name} is damaged" in refuse()
    shard.write_bytes(content)
    assert len(open_source("packed", "train")) == 12
    edit(packed / "dataset_info.json", lambda info: info["splits"][1].update(shardLengths=["11"]))
    assert "it holds 12 examples, expected 11" in refuse()
    assert len(open_source("packed", "test")) == 4  # a split that is not asked for is not opened


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "label.labels.txt", "metadata.json"])
def test_a_description_that_is_a_pipe_is_refused_at_once(packed, name):
    (packed / name).unlink(missing_ok=True)
    os.mkfifo(packed / name)
    assert f"{name} is a named pipe" in refuse()


def test_a_set_that_is_stored_in_other_formats_too_is_read_as_array_record(packed):
    edit(
        packed / "dataset_info.json", lambda i: i.update(fileFormat="tfrecord", alternativeFileFormats=["array_record"])
    )
    assert len(open_source("packed", "train")) == 12
    shard_of(packed).unlink()
    assert "is missing; dataset_info.json counts 12 examples in it" in refuse()


def split_of(**fields):
    return lambda info: info["splits"][1].update(fields)


LIES = {
    "no object": lambda info: [],
    "another version": lambda info: info.update(version="x.y"),
    "no version": lambda info: info.pop("version") and info,
    "another format": lambda info: info.update(fileFormat="zip"),
    "splits that are none": lambda info: info.update(splits={"train": 3}),
    "a length that is none": split_of(shardLengths=["many"]),
    "a length below none": split_of(shardLengths=["-12"]),
    "more examples than there are": split_of(shardLengths=[str(2**62)]),
    "more shards than there are files": split_of(shardLengths=["0"] * 100_000),
    "a template that leads out of the folder": split_of(filepathTemplate="/etc/passwd"),
    "a template that fills the memory": split_of(filepathTemplate="{DATASET:>99999999999}"),
    "a template that asks for attributes": split_of(filepathTemplate="{DATASET.__class__}"),
    "a name that leads out of the folder": lambda info: info.update(name="../packed/packed"),
    "no name": lambda info: info.update(name=""),
    "an unknown field": lambda info: info.update(nonsense=1),
}
FEATURE_LIES = {
    "no object": lambda f: [],
    "nothing": lambda f: f.clear(),
    "no features": lambda f: f["featuresDict"].clear(),
    "no image": lambda f: f["featuresDict"]["features"].pop("image") and f,
    "a feature without class": lambda f: f["featuresDict"]["features"]["image"].pop("pythonClassName") and f,
    "a class that TFDS has not": lambda f: f.update(pythonClassName="tensorflow_datasets.core.features.nowhere.Image"),
    "a billion classes": lambda f: f["featuresDict"]["features"]["label"]["classLabel"].update(numClasses=str(10**9)),
    "no classes": lambda f: f["featuresDict"]["features"]["label"]["classLabel"].update(numClasses="-1"),
    "an image of one dimension": lambda f: f["featuresDict"]["features"]["image"]["image"]["shape"].update(
        dimensions=["3"]
    ),
    "an image of floats": lambda f: f["featuresDict"]["features"]["image"]["image"].update(dtype="float99"),
}


@pytest.mark.parametrize(
    ("name", "lie"),
    [*(("dataset_info.json", lie) for lie in LIES), *(("features.json", lie) for lie in FEATURE_LIES)],
)
def test_a_description_that_lies_is_one_error(packed, name, lie):
    edit(packed / name, (LIES if name == "dataset_info.json" else FEATURE_LIES)[lie])
    message = refuse()
    assert "packed" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_a_description_that_is_no_json_is_one_error(packed, name, content):
    (packed / name).write_bytes(content)
    assert name in refuse()


def test_a_record_that_holds_no_image_or_no_label_is_a_corrupt_image(packed):
    from array_record.python import array_record_module
    from tensorflow_datasets.proto import tf_example_pb2

    source = open_source("packed", "train")
    records = source._records.data_source.__getitems__(list(range(12)))
    unlabelled = tf_example_pb2.Example.FromString(records[1])
    del unlabelled.features.feature["label"]
    two = tf_example_pb2.Example.FromString(records[2])
    two.features.feature["image"].bytes_list.value.append(b"x")
    records[:3] = [b"\xff\xff", unlabelled.SerializeToString(), two.SerializeToString()]
    writer = array_record_module.ArrayRecordWriter(str(shard_of(packed)), "group_size:1,uncompressed")
    for record in records:
        writer.write(record)
    writer.close()
    found = open_source("packed", "train").read_many(range(4))
    assert [data == b"" for data, _, _ in found] == [True, True, True, False]
    assert [name for _, _, name in found] == [f"packed:train#{i}" for i in range(4)]


def test_an_image_that_a_packed_set_calls_whole_and_is_not_is_a_corrupt_one(packed, tmp_path):
    """Its first read is as far down as the crop reaches, without the checks that packing made."""
    from array_record.python import array_record_module
    from tensorflow_datasets.proto import tf_example_pb2

    file = io.BytesIO()
    PIL.Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(file, "JPEG", subsampling=0)
    good = file.getvalue()
    frame = good.index(b"\xff\xc0")
    unknown = good[: frame + 11] + b"\x31" + good[frame + 12 :]  # chroma subsampling that TurboJPEG has no name for
    huge = good[: frame + 5] + b"\xff\xdc\xff\xdc" + good[frame + 9 :]
    records = open_source("packed", "train")._records.data_source.__getitems__(list(range(12)))
    for i, data in enumerate((unknown[:-300], huge, good[:frame], b"\xff\xd8\xff\xc0\0\x02\xff\xda\0\x02\0")):
        example = tf_example_pb2.Example.FromString(records[i])
        example.features.feature["image"].bytes_list.value[:] = [data]
        records[i] = example.SerializeToString()
    writer = array_record_module.ArrayRecordWriter(str(shard_of(packed)), "group_size:1,uncompressed")
    for record in records:
        writer.write(record)
    writer.close()
    source = open_source("packed", "train")
    assert source.checked
    loader = train_batches(source, make_transform("pretrain", (16, 16)), batch_size=12, seed=0, threads=0)
    with contextlib.closing(loader):
        next(loader)
    assert loader.corrupt == {f"packed:train#{i}" for i in range(4)}
