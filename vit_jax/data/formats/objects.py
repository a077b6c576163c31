"""The objects of an image as TFDS's builders store them: the layouts of COCO, VOC and KITTI, parsed from records without
TensorFlow.

In a record the lists of all objects lie flat: `objects/bbox` holds four numbers for each, (top, left, bottom, right) as shares of
the image; KITTI's top and bottom count from the bottom of the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from vit_jax.data.formats.descriptions import refusing
from vit_jax.data.formats.records import CHUNK, TfdsSource, open_builder, source_of
from vit_jax.data.splits import parse_split
from vit_jax.targets import Boxes, BoxLabel
from vit_jax.types import DatasetSpec, Label, UserError, printable

FEATURE = "objects"
# The most objects of an image of data sets too large to count at every start (COCO's authors: 63 in val2017, under 100 in train).
MOST = {"coco": 100, "coco_captions": 100}
# Numbers from 1 to 90 that COCO's 80 categories do not use.
COCO_HOLES = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_IDS = tuple(number for number in range(1, 91) if number not in COCO_HOLES)
KEEP_AT_LEAST = 1.0 / 65536  # a box thinner than this share of the image has no area

_NONE = np.zeros(0, np.float32)
NO_OBJECTS = BoxLabel(np.zeros((0, 4), np.float32), np.zeros(0, np.int32), _NONE, 0, (0, 0), _NONE, _NONE)


class Layout(NamedTuple):
    """How a data set stores its objects.

    Args:
      kind: key of the class.
      ignored: key of the flag of objects that neither train nor count; "" for none.
      area: key of the area in pixels; "" for none.
      from_below: whether top and bottom count from the bottom.
      image_id: key of the image's number; "" for none, and then its place in the split is its number.
    """

    kind: str
    ignored: str
    area: str
    from_below: bool
    image_id: str


def find_layout(name: str, features: Mapping[str, Any]) -> Layout | None:
    """The layout of a data set's features; None if they are not an image with boxes and classes of objects."""
    import tensorflow_datasets as tfds

    features = dict(features.items())
    held = getattr(features.get(FEATURE), "feature", None)
    if not isinstance(held, tfds.features.FeaturesDict) or not isinstance(features.get("image"), tfds.features.Image):
        return None
    inner = dict(held.items())
    kinds = [key for key in ("label", "type") if isinstance(inner.get(key), tfds.features.ClassLabel)]
    if not kinds or not isinstance(inner.get("bbox"), tfds.features.BBoxFeature):
        return None
    ignored = next((key for key in ("is_crowd", "is_difficult") if key in inner), "")
    image_id = "image/id" if "image/id" in features else ""
    return Layout(kinds[0], ignored, "area" if "area" in inner else "", name == "kitti", image_id)


class ObjectSource(TfdsSource):
    """One split of a prepared data set whose labels are boxes; `layout` says how its objects are stored."""

    def __init__(self, spec: DatasetSpec, folder: str, layout: Layout):
        self._layout = layout
        super().__init__(spec, folder, ("image", FEATURE))

    def label(self, features: Any, index: int) -> Label:
        """The objects of a record."""
        return parse(features, self._layout, index)

    def no_label(self) -> Label:
        """No objects."""
        return NO_OBJECTS

    def labels(self) -> np.ndarray:
        """Raises UserError: an image has no single class."""
        raise UserError(f"{self.spec.name}: its examples have boxes; expected one label an image here")

    def largest(self) -> int:
        """The largest number of objects in an image; reads all records."""
        chunks = [range(i, min(i + CHUNK, len(self))) for i in range(0, len(self), CHUNK)]
        return max(len(label.kind) for chunk in chunks for _, label, _ in self.read_many(chunk))  # type: ignore[union-attr]


def open_tfds(dataset: str, split: str, data_dir: str) -> TfdsSource:
    """Opens a prepared data set by its TFDS name.

    Args:
      dataset: `cifar10`, `eurosat/rgb`, `cifar10:3.0.2`, `coco/2017`.
      split: TFDS's syntax.
      data_dir: folder of prepared data sets; empty for the default (`find_data_dir`).

    Raises:
      UserError: not prepared, prepared as TFRecord, unknown name or split, or neither of classes nor of objects.
    """
    builder = open_builder(dataset, data_dir)
    info = builder.info
    with refusing(builder.data_dir):
        layout = find_layout(info.name, info.features)
    if layout is None:
        return source_of(builder, dataset, split)
    slices = parse_split(dataset, split, {name: s.num_examples for name, s in info.splits.items()})
    classes = info.features[FEATURE].feature[layout.kind]
    spec = DatasetSpec(
        name=dataset,
        split=split,
        num_examples=sum(s.stop - s.start for s in slices),
        target=Boxes(classes.num_classes, MOST.get(info.name, 1)),
        class_names=tuple(map(printable, classes.names)),
        image_shape=tuple(info.features["image"].shape),
    )
    source = ObjectSource(spec, str(builder.data_dir), layout)
    source.class_ids = COCO_IDS if (info.name, classes.num_classes) == ("coco", len(COCO_IDS)) else ()
    if info.name not in MOST and len(source):
        source.spec = spec._replace(target=Boxes(classes.num_classes, max(source.largest(), 1)))
    return source


def parse(features: Mapping[str, Any], layout: Layout, index: int) -> BoxLabel:
    """The objects of one record.

    Args:
      features: of the tf.train.Example.
      layout: of its data set.
      index: place of the example in its split.

    Raises:
      ValueError: lists that do not belong together.
    """

    def numbers(key: str) -> np.ndarray:
        return np.array(features[f"{FEATURE}/{key}"].int64_list.value, np.float64)

    box = np.array(features[f"{FEATURE}/bbox"].float_list.value, np.float32).reshape(-1, 4)
    kind = numbers(layout.kind).astype(np.int32)
    crowd = numbers(layout.ignored) if layout.ignored else np.zeros(len(box))
    area = numbers(layout.area) if layout.area else np.zeros(len(box))
    if not len(box) == len(kind) == len(crowd) == len(area):
        raise ValueError(f"{len(box)} boxes, {len(kind)} classes")
    if layout.from_below:
        box = np.stack([1 - box[:, 2], box[:, 1], 1 - box[:, 0], box[:, 3]], axis=1)
    box = np.clip(box[:, [1, 0, 3, 2]], 0, 1)
    sound = (box[:, 2:] - box[:, :2] > KEEP_AT_LEAST).all(axis=1)
    image_id = int(features[layout.image_id].int64_list.value[0]) if layout.image_id else index
    valid = np.where(sound, np.float32(1), np.float32(0))
    return BoxLabel(box, kind, valid, image_id, (0, 0), crowd.astype(np.float32), area.astype(np.float32))
