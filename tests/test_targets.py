"""Labels of examples: classes, sets of classes, and boxes, which ride along from the reader to the devices."""

import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from vit_jax import partition
from vit_jax.data.image.recipes import make_transform
from vit_jax.data.source import Source
from vit_jax.data.stream.loader import eval_batches, train_batches
from vit_jax.targets import Boxes, BoxLabel, ClassId, ClassSet, Values, map_arrays
from vit_jax.train.mixing import mixed_values
from vit_jax.types import DatasetSpec, UserError


def boxes(*corners, kinds=None, image_id=0):
    box = np.array(corners, np.float32).reshape(-1, 4)
    kind = np.array(range(len(box)) if kinds is None else kinds, np.int32)
    return BoxLabel(box, kind, np.ones(len(box), np.float32), image_id, (8, 12))


def test_a_class_and_a_set_of_classes_are_rows_of_numbers():
    one, some = ClassId(3), ClassSet(3)
    single, sets = one.empty(2), some.empty(2)
    assert (one.put(single, 1, 2), some.put(sets, 0, (0, 2)), some.put(sets, 1, ())) == ("", "", "")
    assert (single.dtype, single.tolist()) == (np.int32, [0, 2])
    assert (sets.dtype, sets.tolist()) == (np.uint8, [[1, 0, 1], [0, 0, 0]])
    numbers = Values(2).empty(2)
    assert Values(2).put(numbers, 1, (0.5, -1.0)) == ""
    assert (numbers.dtype, numbers.tolist()) == (np.float32, [[0, 0], [0.5, -1]])


@pytest.mark.parametrize(
    ("target", "label", "problem"),
    [
        (ClassId(3), 3, "label 3, expected 0 to 2: this split has no (or other) labels"),
        (ClassId(3), -1, "label -1, expected 0 to 2: this split has no (or other) labels"),
        (ClassSet(2), (0, 2), "label (0, 2), expected 0 to 1: this split has no (or other) labels"),
        (Values(2), (1.0,), "1 numbers, expected 2"),
        (Boxes(2, 1), boxes([0, 0, 1, 1], [0, 0, 1, 1]), "2 boxes, expected at most 1"),
        (Boxes(1, 2), boxes([0, 0, 1, 1], kinds=[1]), "label [1], expected 0 to 0"),
        (Boxes(1, 2), boxes([0, 0, 1.5, 1]), "expected 1 of (left, top, right, bottom) in [0, 1]"),
    ],
)
def test_a_label_that_is_wrong_is_named_and_not_written(target, label, problem):
    arrays, before = target.empty(1), target.empty(1)
    assert problem in target.put(arrays, 0, label)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(arrays), jax.tree.leaves(before), strict=True))


def test_boxes_fill_their_rows_and_leave_the_others_padding():
    target = Boxes(5, most=3)
    arrays = target.empty(2)
    label = boxes([0, 0, 0.5, 0.25], [0.5, 0.5, 0.5, 1], kinds=[4, 1], image_id=77)
    assert target.put(arrays, 1, label._replace(valid=np.array([1, 0], np.float32))) == ""
    assert arrays.valid.tolist() == [[0, 0, 0], [1, 0, 0]]
    assert arrays.box[1].tolist() == [[0, 0, 0.5, 0.25], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert (arrays.kind[1].tolist(), arrays.image_id.tolist()) == ([4, 0, 0], [0, 77])
    assert arrays.size.tolist() == [[0, 0], [8, 12]]
    assert target.put(target.empty(1), 0, boxes()) == ""  # an image without objects


def test_a_spec_counts_classes_by_its_target_and_is_written_for_old_readers_and_new():
    spec = DatasetSpec("photographs", "test", 9, ClassSet(4), tuple("abcd"), (None, None, 3), notes=("one",))
    assert spec.num_classes == 4
    written = json.loads(json.dumps(spec.to_json()))
    assert written == {
        **{"name": "photographs", "split": "test", "num_examples": 9, "num_classes": 4, "class_names": list("abcd")},
        **{"image_shape": [None, None, 3], "multi_label": True, "competing": [], "class_counts": []},
        **{"num_excluded": 0, "short_side": 0, "notes": ["one"], "target": {"kind": "ClassSet", "num_classes": 4}},
    }
    found = spec._replace(target=Boxes(4, most=7)).to_json()
    assert (found["multi_label"], found["target"]) == (False, {"kind": "Boxes", "num_classes": 4, "most": 7})


class Objects(Source):
    """Sixteen images, image i with i % 4 objects of class i % 4; those in `bad` do not decode."""

    def __init__(self, bad=()):
        self.spec = DatasetSpec("objects", "train", 16, Boxes(4, most=3), (), (12, 8, 3))
        self._bad = bad

    def read(self, index):
        buffer = io.BytesIO()
        PIL.Image.fromarray(np.full((12, 8, 3), index, np.uint8)).save(buffer, "PNG")
        label = boxes(*[[0, 0.25, 0.5, 1]] * (index % 4), kinds=[index % 4] * (index % 4), image_id=1000 + index)
        return b"" if index in self._bad else buffer.getvalue(), label, f"#{index}"


@pytest.mark.parametrize("devices", [1, 8])
def test_boxes_ride_along_from_the_reader_to_the_devices(devices):
    mesh = partition.make_mesh(devices=jax.devices()[:devices])
    (host,) = eval_batches(Objects(bad=[5]), make_transform("eval", (6, 4)), batch_size=16)
    batch = partition.put_batch(host, mesh)
    assert batch.target.box.sharding.num_devices == devices
    assert {x.addressable_shards[0].data.shape[0] for x in jax.tree.leaves(batch)} == {16 // devices}
    got = jax.tree.map(np.asarray, batch.target)
    expected = [[float(row < i % 4 and i != 5) for row in range(3)] for i in range(16)]
    assert got.valid.tolist() == expected
    assert got.kind.max(axis=1).tolist() == [0 if i == 5 else i % 4 for i in range(16)]
    assert got.image_id.tolist() == [0 if i == 5 else 1000 + i for i in range(16)]
    assert got.box[3].tolist() == [[0, 0.25, 0.5, 1]] * 3
    assert (got.box[0].tolist(), batch.mask[5]) == ([[0, 0, 1, 1]] * 3, 0)


@pytest.mark.slow
def test_boxes_come_back_from_worker_processes():
    options = {"batch_size": 8, "seed": 3, "threads": 0}
    found = []
    for workers in (0, 1):
        loader = train_batches(Objects(), make_transform("resize_flip", (6, 4), flip=False), workers=workers, **options)
        found.append([next(loader) for _ in range(2)])
        loader.close()
    for here, there in zip(*found, strict=True):
        assert type(there.target) is type(here.target)
        assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True))


def test_a_box_that_does_not_fit_stops_the_run_and_names_its_image():
    source = Objects()
    source.spec = source.spec._replace(target=Boxes(4, most=2))
    with pytest.raises(UserError, match=r"objects train: #3 has 3 boxes, expected at most 2"):
        list(eval_batches(source, make_transform("eval", (6, 4)), batch_size=16))


def test_mixing_rolls_every_array_of_a_target():
    (batch,) = eval_batches(Objects(), make_transform("eval", (6, 4)), batch_size=16)
    values = mixed_values(
        lambda outputs, batch: {"loss": jnp.float32(batch.target.image_id)}, None, batch, jnp.float32(0.25)
    )
    ids = np.arange(1000, 1016)
    assert np.allclose(values["loss"], 0.25 * ids + 0.75 * np.roll(ids, 1))


def test_a_function_of_arrays_reaches_all_of_a_target():
    doubled = map_arrays(lambda x: 2 * x, Boxes(3, 2).empty(1)._replace(image_id=np.array([4])))
    assert (doubled.image_id.tolist(), doubled.box.tolist()) == ([8], [[[0, 0, 2, 2]] * 2])
    assert map_arrays(np.negative, np.array([1, 2])).tolist() == [-1, -2]
