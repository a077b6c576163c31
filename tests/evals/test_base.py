"""Reading a split for an evaluator: every example once, or an error."""

import numpy as np
import pytest

from vit_jax import partition
from vit_jax.data.open import open_source
from vit_jax.evals import base
from vit_jax.evals.base import has_top5
from vit_jax.targets import ClassId
from vit_jax.types import DatasetSpec, UserError


def test_a_reader_that_ends_early_is_an_error_for_every_evaluator(folder, monkeypatch):
    whole = base.eval_batches

    class Short:
        def __init__(self, *args, **options):
            self._loader = whole(*args, **options)
            self.corrupt = self._loader.corrupt

        def __iter__(self):
            return iter(list(self._loader)[:1])

    monkeypatch.setattr(base, "eval_batches", Short)
    source = open_source(str(folder[0]), "test")
    options = {"recipe": "eval", "resolution": (8, 8), "batch_size": 8, "max_corrupt": 0}
    with pytest.raises(UserError, match="8 examples read and 0 corrupt, but the split has 13"):
        list(base.read_split(source, mesh=partition.make_mesh(), **options))


def spec_of(classes, competing=()):
    return DatasetSpec("x", "test", 1, ClassId(classes), (), (8, 8, 3), competing)


def test_top_five_means_something_where_more_than_five_classes_compete():
    assert [has_top5(spec_of(classes)) for classes in (2, 5, 6, 1000)] == [False, False, True, True]
    assert has_top5(spec_of(1000, tuple(range(200))))
    assert not has_top5(spec_of(1000, (1, 7, 9, 11, 500)))


def test_every_example_is_read_once_and_padding_is_not_counted(folder):
    path, _, (images, labels) = folder
    source = open_source(str(path), "test")
    options = {"recipe": "eval", "resolution": (8, 8), "batch_size": 8, "max_corrupt": 0}
    batches = list(base.read_split(source, mesh=partition.make_mesh(), **options))
    assert [rows for _, rows in batches] == [8, 5]
    assert {batch.image.shape for batch, _ in batches} == {(8, 8, 8, 3)}
    seen = [
        (np.asarray(batch.image)[i].tobytes(), int(batch.target[i])) for batch, rows in batches for i in range(rows)
    ]
    assert sorted(seen) == sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))
    assert np.asarray(batches[1][0].mask).tolist() == [1] * 5 + [0] * 3


def test_corrupt_images_are_left_out_and_the_rest_is_still_the_whole_split(folder):
    path = folder[0]
    (path / "test" / "class0" / "00.png").write_bytes(b"no image")
    source = open_source(str(path), "test")
    options = {"recipe": "eval", "resolution": (8, 8), "batch_size": 16}
    ((batch, rows),) = base.read_split(source, mesh=partition.make_mesh(), max_corrupt=1, **options)
    assert (rows, float(batch.mask.sum())) == (12, 12.0)
    with pytest.raises(UserError, match=r"1 of 13 images"):
        list(base.read_split(source, mesh=partition.make_mesh(), max_corrupt=0, **options))
