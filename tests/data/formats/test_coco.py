"""A folder of images with COCO's annotations: labels, holes, and annotations that make no sense."""

import json

import cv2
import numpy as np
import pytest

from vit_jax.data.formats.coco import is_coco, read_box
from vit_jax.data.open import open_source
from vit_jax.targets import Boxes
from vit_jax.types import UserError

FILE = "annotations/instances_train2017.json"
CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "stop sign"}]
IMAGES = [
    {"id": 139, "file_name": "b.png", "height": 20, "width": 40},
    {"id": 7, "file_name": "a.png", "height": 40, "width": 20},
    {"id": 8, "file_name": "c.png", "height": 40, "width": 20},
]


def annotation(number, image, category, bbox, **more):
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "area": 12.5, "iscrowd": 0, **more}


GOOD = [
    annotation(1, 139, 90, [10, 5, 20, 10]),
    annotation(2, 139, 1, [0, 0, 40, 20], iscrowd=1),
    annotation(3, 7, 13, [0, 0, 5, 5]),
]


@pytest.fixture
def folder(tmp_path):
    def make(
        annotations=GOOD,
        images=IMAGES,
        categories=CATEGORIES,
        name="annotations/instances_train2017.json",
        where="train2017",
    ):
        (tmp_path / where).mkdir(parents=True, exist_ok=True)
        for row in IMAGES:
            cv2.imwrite(str(tmp_path / where / row["file_name"]), np.zeros((row["height"], row["width"], 3), np.uint8))
        place = tmp_path / name
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
        return str(tmp_path)

    return make


def test_labels_are_ranks_of_category_ids_and_boxes_shares_of_the_image(folder):
    source = open_source(folder(), "train2017", boxes=True)
    assert source.spec.target == Boxes(3, most=2)
    assert source.spec.class_names == ("person", "stop sign", "toothbrush")
    assert source.class_ids == (1, 13, 90)
    data, label, name = source.read(0)
    assert source.decode(data).shape == (20, 40, 3)
    assert name == "train2017/b.png"
    np.testing.assert_allclose(label.box, [[0.25, 0.25, 0.75, 0.75], [0, 0, 1, 1]])
    assert (label.kind.tolist(), label.crowd.tolist(), label.area.tolist()) == ([2, 0], [0, 1], [12.5, 12.5])
    assert label.image_id == 139
    empty = source.read(2)[1]
    assert (empty.box.shape, empty.kind.tolist(), empty.image_id) == ((0, 4), [], 8)
    assert source.subset(np.array([1])).class_ids == (1, 13, 90)


@pytest.mark.parametrize("where", ["train2017", "images/train2017", "images", "."])
def test_images_are_found_in_the_usual_folders(folder, where):
    source = open_source(folder(where=where), "train", boxes=True)
    assert source.decode(source.read(1)[0]).shape == (40, 20, 3)


def test_a_split_is_named_without_its_year_and_cut_as_any_other(folder):
    root = folder(name="instances_train2017.json")
    assert is_coco(root)
    assert len(open_source(root, "train[:67%]", boxes=True)) == 2
    with pytest.raises(UserError, match=r"no split 'val' in 'val'; its annotations are of train2017"):
        open_source(root, "val", boxes=True)


BROKEN = [
    (annotation(10, 999, 1, [0, 0, 5, 5]), "of images that are not listed"),
    (annotation(11, 7, 2, [0, 0, 5, 5]), "of categories that are not listed"),
    (annotation(12, 7, 1, [0, 0, float("nan"), 5]), "without four finite numbers as bbox"),
    (annotation(13, 7, 1, [0, 0, 5]), "without four finite numbers as bbox"),
    (annotation(14, 7, 1, "none"), "without four finite numbers as bbox"),
    (annotation(15, 7, 1, [9, 9, -5, 5]), "with a box without area, or reversed"),
    (annotation(16, 7, 1, [9, 9, 0, 5]), "with a box without area, or reversed"),
    (annotation(17, 7, 1, [30, 0, 5, 5]), "with a box outside the image"),
]


@pytest.mark.parametrize(("broken", "why"), BROKEN)
def test_an_annotation_that_makes_no_sense_is_left_out_counted_and_named(folder, broken, why):
    source = open_source(folder([*GOOD, broken]), "train", boxes=True)
    assert source.spec.notes == (f"1 annotation left out, {why}: id {broken['id']}",)
    assert sum(len(source.read(i)[1].kind) for i in range(3)) == 3


def test_many_of_a_kind_are_one_note_and_none_left_is_an_error(folder):
    wrong = [annotation(20 + i, 999, 1, [0, 0, 5, 5]) for i in range(5)]
    source = open_source(folder([*GOOD, *wrong]), "train", boxes=True)
    assert source.spec.notes == ("5 annotations left out, of images that are not listed: id 20, id 21, id 22, ...",)
    with pytest.raises(UserError, match="none of its 5 annotations makes sense"):
        open_source(folder(wrong), "train", boxes=True)


def test_a_box_partly_outside_is_clipped():
    np.testing.assert_allclose(read_box([-10, 10, 20, 100], (40, 20)), [0, 0.25, 0.5, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": [{**IMAGES[0], "file_name": "../../etc/passwd"}]}, "a `file_name` inside the folder"),
        ({"images": [{**IMAGES[0], "file_name": "/etc/passwd"}]}, "a `file_name` inside the folder"),
        ({"images": [IMAGES[0], IMAGES[0]]}, "images with an `id` of their own"),
        ({"images": []}, "no image"),
        ({"categories": []}, "expected categories with an `id` and a `name`"),
        (
            {"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]},
            "category ids must differ; 1 names more than one",
        ),
        ({"images": [{**IMAGES[0], "file_name": "gone.png"}]}, "the images of train2017 are missing"),
        ({"annotations": 3}, "expected COCO's lists `images`, `categories` and `annotations`"),
    ],
)
def test_a_file_that_is_no_annotation_is_refused(folder, change, message):
    with pytest.raises(UserError, match=message):
        open_source(folder(**{"annotations": [], **change}), "train", boxes=True)


def test_text_that_is_no_json_is_refused(folder, tmp_path):
    root = folder()
    (tmp_path / FILE).write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        open_source(root, "train", boxes=True)
