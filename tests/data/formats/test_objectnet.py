"""ObjectNet from a small folder in the layout of the archive: scored images, right classes, and the border."""

import json
import shutil

import numpy as np
import objectnet_folder
import pytest

from vit_jax.data.build import TrainData
from vit_jax.data.image.decode import decode
from vit_jax.data.image.encoded import CorruptImage
from vit_jax.data.image.recipes import make_transform
from vit_jax.data.open import open_source
from vit_jax.data.prepare import check as checks
from vit_jax.data.prepare.check import check
from vit_jax.data.prepare.prepare import prepare
from vit_jax.data.stream.loader import eval_batches
from vit_jax.targets import ClassSet
from vit_jax.types import UserError

NAMES = ["tench", "analog clock", "ball", "digital clock", "banana", "tie"]
TITLES = {"alarm_clock": "Alarm clock", "banana": "Banana", "air_freshener": "Air freshener"}
RIGHT = {"Banana": "banana", "Alarm clock": "analog clock; digital clock"}
SETS = {"alarm_clock": (1, 3), "banana": (4,)}  # positions in NAMES
IMAGES = {"alarm_clock": 5, "banana": 3, "air_freshener": 4}


@pytest.fixture
def archive(tmp_path):
    """(data folder, {path: image without border})."""
    inner = objectnet_folder.write(tmp_path / "objectnet-1.0", IMAGES, TITLES, RIGHT, NAMES, side=24)
    return tmp_path, inner


@pytest.mark.parametrize("by_name", [True, False])
def test_only_images_of_imagenets_classes_are_there_and_any_mapped_class_is_right(archive, by_name):
    folder, _ = archive
    dataset = "objectnet" if by_name else str(folder / "objectnet-1.0")
    source = open_source(dataset, "test", str(folder), multi_label=True)
    assert (len(source), source.spec.num_classes, source.spec.class_names) == (8, 6, tuple(NAMES))
    assert source.spec.target == ClassSet(6)
    assert source.spec.competing == ()  # a prediction is one of all classes, as its authors score
    read = [source.read(i) for i in range(8)]
    for _, labels, path in read:
        assert labels == SETS[path.split("/")[1]]
    assert sorted(path for *_, path in read) == sorted(
        f"images/{name}/{i:04}.png" for name in SETS for i in range(IMAGES[name])
    )


def test_the_border_is_cut_and_a_pixel_more(archive):
    folder, inner = archive
    source = open_source("objectnet", "test", str(folder), multi_label=True)
    for i in range(len(source)):
        data, _, path = source.read(i)
        assert (decode(data)[0] == objectnet_folder.RED).all()
        np.testing.assert_array_equal(source.decode(data), inner[path][1:-1, 1:-1])


def test_batches_hold_the_sets(archive):
    folder, _ = archive
    source = open_source("objectnet", "test", str(folder), multi_label=True)
    (batch,) = eval_batches(source, make_transform("objectnet", (15, 15)), batch_size=10, max_corrupt=0)
    assert (batch.target.dtype, batch.target.shape, batch.image.shape) == (np.uint8, (10, 6), (10, 15, 15, 3))
    paths = [source.read(i)[2] for i in range(8)]
    for row, path in enumerate(paths):
        assert tuple(np.flatnonzero(batch.target[row])) == SETS[path.split("/")[1]]
    assert batch.mask.tolist() == [1] * 8 + [0] * 2
    assert not batch.target[8:].any()


def test_a_part_of_the_split_is_the_first_of_the_whole(archive):
    folder, _ = archive
    whole = open_source("objectnet", "test", str(folder), multi_label=True)
    part = open_source("objectnet", "test[:2]+test[5:7]", str(folder), multi_label=True)
    assert [part.read(i)[2] for i in range(4)] == [whole.read(i)[2] for i in (0, 1, 5, 6)]


def test_training_on_it_is_refused(archive):
    with pytest.raises(UserError, match=r"objectnet: its licence forbids training on it.*evaluator named scorecard"):
        TrainData(
            dataset="objectnet",
            split="test",
            data_dir=str(archive[0]),
            batch_size=2,
            recipe="pretrain",
            resolution=(8, 8),
        ).open()
    with pytest.raises(UserError, match=r"objectnet: its examples have sets of labels.*multilabel or scorecard"):
        open_source("objectnet", "test", str(archive[0]))


def test_what_is_missing_says_where_it_comes_from(tmp_path):
    with pytest.raises(UserError, match=r"found no objectnet-1.0/images.*objectnet.dev.*unzip objectnet-1.0.zip -d"):
        open_source("objectnet", "test", str(tmp_path), multi_label=True)
    with pytest.raises(UserError, match=r"needs no preparation: unpack objectnet-1.0.zip from https://objectnet.dev"):
        prepare("objectnet", data_dir=str(tmp_path))
    found = check("objectnet", str(tmp_path))
    assert found.state == "missing"
    assert "objectnet.dev" in found.action


@pytest.mark.parametrize("damage", ["file", "json", "values", "name", "order", "title", "images", "split"])
def test_damage_is_an_error_that_names_it(archive, damage):
    folder, _ = archive
    root, split = folder / "objectnet-1.0", "test"
    maps, match = root / "mappings", ""
    if damage == "file":
        (maps / "folder_to_objectnet_label.json").unlink()
        match = "folder_to_objectnet_label.json does not exist"
    elif damage == "json":
        (maps / "pytorch_to_imagenet_2012_id.json").write_text("{")
        match = "pytorch_to_imagenet_2012_id.json cannot be read as JSON .* unpack the archive again"
    elif damage == "values":
        (maps / "pytorch_to_imagenet_2012_id.json").write_text('{"a": [], "0": "b"}')
        match = "mappings: the maps hold other values than expected .* unpack the archive again"
    elif damage == "name":
        (maps / "objectnet_to_imagenet_1k.json").write_text(json.dumps(RIGHT | {"Banana": "banana, plantain"}))
        match = r"1 ImageNet names \(banana, plantain\)"
    elif damage == "order":
        (maps / "pytorch_to_imagenet_2012_id.json").write_text(json.dumps({str(i): i + 1 for i in range(6)}))
        match = "expected a line for each class, found 6 lines and 6 classes"
    elif damage == "title":
        (maps / "objectnet_to_imagenet_1k.json").write_text(json.dumps(RIGHT | {"Tie": "tie"}))
        match = r"1 classes \(Tie\)"
    elif damage == "images":
        shutil.rmtree(root / "images" / "banana")
        match = r"1 of the 2 classes that are also ImageNet's have no images \(banana\)"
    else:
        split, match = "validation", r"the splits are test \(8\)"
    with pytest.raises(UserError, match=match):
        open_source("objectnet", split, str(folder), multi_label=True)


def test_an_image_that_is_all_border_is_corrupt(archive):
    source = open_source("objectnet", "test", str(archive[0]), multi_label=True)
    import cv2

    small = cv2.imencode(".png", np.zeros((4, 9, 3), np.uint8))[1].tobytes()
    with pytest.raises(CorruptImage, match="no more than the border"):
        source.decode(small)


def test_check_counts_and_decodes(archive, monkeypatch):
    folder, _ = archive
    found = check("objectnet", str(folder))
    assert found.state == "wrong"
    assert "8 images of ImageNet's classes, expected 18,574" in found.detail
    monkeypatch.setitem(checks.KNOWN, "objectnet", checks.KNOWN["objectnet"]._replace(splits={"test": 8}))
    assert check("objectnet", str(folder)).state == "ready"
    for image in (folder / "objectnet-1.0" / "images" / "banana").iterdir():
        image.write_bytes(image.read_bytes()[:50])
    assert check("objectnet", str(folder)).state == "wrong"
