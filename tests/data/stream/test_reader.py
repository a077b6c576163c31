"""One batch: which examples are decoded whole, read together, or replaced."""

import numpy as np
from jpegs import IMAGE, jpeg

from vit_jax.data.image.decode import decode
from vit_jax.data.image.recipes import make_transform
from vit_jax.data.source import Source
from vit_jax.data.stream.reader import BatchReader
from vit_jax.targets import ClassId, ClassSet
from vit_jax.types import DatasetSpec


class Memory(Source):
    """JPEGs, one of them damaged near its end."""

    def __init__(self):
        self.data = [jpeg(np.roll(IMAGE, i, 0), progressive=i == 2) for i in range(5)]
        self.data.append(jpeg()[:-200] + b"\xff\xd9")
        self.spec = DatasetSpec("memory", "train", 6, ClassId(6), (), (None, None, 3))

    def __len__(self):
        return len(self.data)

    def read(self, index):
        return self.data[index], index, f"image-{index}.jpg"


def test_later_epochs_take_the_short_way_to_the_same_batches(monkeypatch):
    source, transform = Memory(), make_transform("pretrain", (32, 32))
    keys = [np.array([(epoch, index) for index in range(6)]) for epoch in range(4)]
    reader = BatchReader(source, transform, 0, replace=True, max_corrupt=5)
    fresh = [BatchReader(source, transform, 0, replace=True, max_corrupt=5)(k) for k in keys]
    decoded = []
    monkeypatch.setattr(reader, "_decode", lambda data: decoded.append(data) or decode(data, fast_dct=True))
    for epoch, expected in zip(keys, fresh, strict=True):
        element = reader(epoch)
        assert all(np.array_equal(a, b) for a, b in zip(element.batch, expected.batch, strict=True))
        assert [name for name, _ in element.corrupt] == ["image-5.jpg"]  # found each time, never trusted
    # Whole once each; the progressive and the damaged one each time.
    assert [decoded.count(data) for data in source.data] == [1, 1, 4, 1, 1, 4]


def test_a_checked_source_takes_the_short_way_from_the_start(monkeypatch):
    source, transform = Memory(), make_transform("pretrain", (32, 32))
    del source.data[5:]  # the damaged one, which no check lets through
    keys = np.array([(0, index) for index in range(5)])
    expected = BatchReader(source, transform, 0, replace=True, max_corrupt=5)(keys)
    source.checked = True
    reader, decoded = BatchReader(source, transform, 0, replace=True, max_corrupt=5), []
    monkeypatch.setattr(reader, "_decode", lambda data: decoded.append(data) or decode(data, fast_dct=True))
    found = reader(keys)
    assert all(np.array_equal(a, b) for a, b in zip(found.batch, expected.batch, strict=True))
    assert decoded == [source.data[2]]  # the progressive one


def test_a_large_batch_is_read_in_parts(monkeypatch):
    asked = []

    class Counted(Memory):
        def read_many(self, indices):
            asked.append(list(indices))
            return [self.read(index) for index in indices]

    keys = np.array([(0, index) for index in (3, 1, 4, 0, 2)])
    read = BatchReader(Counted(), make_transform("pretrain", (32, 32)), 0, replace=True, max_corrupt=5)
    expected = read(keys).batch
    monkeypatch.setattr("vit_jax.data.stream.reader.TOGETHER", 2)
    found = BatchReader(Counted(), make_transform("pretrain", (32, 32)), 0, replace=True, max_corrupt=5)(keys).batch
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert found.target.tolist() == [3, 1, 4, 0, 2]
    assert asked == [[3, 1, 4, 0, 2], [3, 1], [4, 0], [2]]


def test_a_file_that_vanishes_after_its_first_epoch_is_a_corrupt_image():
    source = Memory()
    reader = BatchReader(source, make_transform("pretrain", (32, 32)), 0, replace=True, max_corrupt=5)
    assert reader(np.array([(0, 0), (0, 1)])).corrupt == ()
    source.data[0] = b""  # what a folder gives for it
    element = reader(np.array([(1, 0), (1, 1)]))
    assert [name for name, _ in element.corrupt] == ["image-0.jpg"]
    assert element.batch.target.tolist() == [1, 1]


def test_the_labels_of_a_corrupt_image_are_not_left_to_its_replacement():
    class Sets(Memory):
        spec = DatasetSpec("memory", "train", 6, ClassSet(6), (), (None, None, 3))

        def __init__(self):
            self.data = Memory().data

        def read(self, index):
            return self.data[index], (index, 2), f"image-{index}.jpg"

    reader = BatchReader(Sets(), make_transform("pretrain", (32, 32)), 0, replace=True, max_corrupt=5)
    element = reader(np.array([(0, 5), (0, 3)]))
    assert element.batch.target.tolist() == [[1, 0, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0]]
    assert [name for name, _ in element.corrupt] == ["image-5.jpg"]


def test_recipes_that_resize_first_decode_whole():
    reader = BatchReader(Memory(), make_transform("finetune", (24, 24)), 0, replace=True, max_corrupt=5)
    keys = np.array([(0, 0), (0, 1)])
    assert np.array_equal(reader(keys).batch.image, reader(keys).batch.image)
