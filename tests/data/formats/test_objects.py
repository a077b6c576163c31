"""Objects in TFDS's records: the layouts of COCO, VOC and KITTI."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from vit_jax.data.formats.objects import Layout, find_layout, parse
from vit_jax.data.prepare import tensorflow_free
from vit_jax.data.prepare.prepare import _make_builder

COCO = Layout("label", "is_crowd", "area", False, "image/id")
VOC = Layout("label", "is_difficult", "", False, "")
KITTI = Layout("type", "", "", True, "")


def record(boxes, **lists):
    """The features of a record, whose boxes are (top, left, bottom, right)."""
    example = tf_example_pb2.Example()
    example.features.feature["objects/bbox"].float_list.value.extend(np.ravel(boxes))
    for key, values in lists.items():
        name = "image/id" if key == "image_id" else f"objects/{key}"
        example.features.feature[name].int64_list.value.extend(values)
    return tf_example_pb2.Example.FromString(example.SerializeToString()).features.feature


def test_coco_has_areas_crowds_and_numbers_of_images():
    features = record([[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]], label=[7, 3], area=[50, 9], is_crowd=[0, 1], image_id=[139])
    found = parse(features, COCO, 5)
    np.testing.assert_allclose(found.box, [[0.2, 0.1, 0.4, 0.3], [0, 0, 1, 1]], rtol=1e-6)
    assert (found.kind.tolist(), found.crowd.tolist(), found.area.tolist()) == ([7, 3], [0, 1], [50, 9])
    assert (found.image_id, found.valid.tolist()) == (139, [1, 1])


def test_an_image_without_objects_has_lists_of_length_0():
    found = parse(record([], label=[], area=[], is_crowd=[], image_id=[4]), COCO, 0)
    assert (found.box.shape, found.kind.shape, found.valid.shape) == ((0, 4), (0,), (0,))
    assert found.box.dtype == np.float32


def test_vocs_difficult_objects_are_ignored_and_its_images_numbered_by_place():
    found = parse(record([[0.1, 0.2, 0.3, 0.4]], label=[1], is_difficult=[1]), VOC, 12)
    assert (found.crowd.tolist(), found.image_id, found.area.tolist()) == ([1], 12, [0])


def test_kittis_boxes_count_from_below():
    # 100 to 150 pixels from the top of 375: TFDS stores top (375 - 150) / 375 and bottom (375 - 100) / 375.
    features = record([[225 / 375, 0.25, 275 / 375, 0.5]], type=[0])
    np.testing.assert_allclose(parse(features, KITTI, 0).box, [[0.25, 100 / 375, 0.5, 150 / 375]], rtol=1e-5)


def test_a_box_without_area_does_not_count_and_one_outside_is_clipped():
    found = parse(record([[0.5, 0.5, 0.5, 0.9], [-0.1, 0, 1.2, 1]], label=[0, 1], is_difficult=[0, 0]), VOC, 0)
    assert found.valid.tolist() == [0, 1]
    assert found.box[1].tolist() == [0, 0, 1, 1]


def test_lists_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="2 boxes, 1 classes"):
        parse(record([[0, 0, 1, 1]] * 2, label=[1], is_difficult=[0, 0]), VOC, 0)


def features(**inner):
    f = tfds.features
    return f.FeaturesDict({"image": f.Image(), "objects": f.Sequence({"bbox": f.BBoxFeature(), **inner})})


def test_the_layout_is_found_by_the_features():
    kinds = tfds.features.ClassLabel(num_classes=3)
    assert find_layout("voc", features(label=kinds, is_difficult=np.bool_)) == VOC
    assert find_layout("kitti", features(type=kinds)) == KITTI
    assert find_layout("mine", features(label=kinds)) == KITTI._replace(kind="label", from_below=False)
    assert find_layout("mine", features(other=kinds)) is None
    assert find_layout("mine", tfds.features.FeaturesDict({"image": tfds.features.Image(), "label": kinds})) is None


@pytest.mark.parametrize(("name", "layout"), [("coco/2017", COCO), ("voc/2007", VOC), ("kitti", KITTI)])
def test_tfds_own_builders_are_made_without_tensorflow_and_have_these_layouts(name, layout, tmp_path):
    builder = _make_builder(name, str(tmp_path))
    with tensorflow_free.installed():
        assert find_layout(builder.name, builder.info.features) == layout
