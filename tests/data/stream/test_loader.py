"""Batches: their examples, order and randomness; and images that do not decode."""

import io
import itertools
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest

from vit_jax.data.image.decode import decode
from vit_jax.data.image.recipes import Transform, make_transform
from vit_jax.data.open import open_source
from vit_jax.data.source import Source
from vit_jax.data.stream.loader import eval_batches, train_batches
from vit_jax.targets import ClassId
from vit_jax.types import DatasetSpec, UserError


class MemorySource(Source):
    """n small random PNGs whose label is their index; those in `bad` are cut short."""

    def __init__(self, n, bad=(), num_classes=None):
        self.spec = DatasetSpec("memory", "train", n, ClassId(num_classes or n), (), (12, 12, 3))
        self._data = []
        for index in range(n):
            buffer = io.BytesIO()
            image = np.random.default_rng(index).integers(0, 256, (12, 12, 3), np.uint8)
            PIL.Image.fromarray(image).save(buffer, "PNG")
            self._data.append(buffer.getvalue()[: 40 if index in bad else None])

    def __len__(self):
        return len(self._data)

    def read(self, index):
        return self._data[index], index, f"image-{index}.png"


class Guarded(Transform):
    """A transform that fails where TensorFlow is imported or a JAX backend was started; for worker processes."""

    def __call__(self, example, rng, out=None):
        assert "tensorflow" not in sys.modules
        if "jax" in sys.modules and sys.modules["__main__"].__name__ == "__mp_main__":
            from jax._src import xla_bridge

            assert not xla_bridge.backends_are_initialized()
        return super().__call__(example, rng, out)


PRETRAIN = make_transform("pretrain", (8, 8))
EVAL = make_transform("eval", (8, 8))


def take(count, source, transform=PRETRAIN, **options):
    loader = train_batches(source, transform, **{"batch_size": 4, "seed": 0, **options})
    batches = list(itertools.islice(loader, count))
    loader.close()
    return batches


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def labels(batches):
    return np.concatenate([batch.target for batch in batches]).tolist()


def test_batches_are_contiguous_uint8_int32_and_float32():
    (batch,) = take(1, MemorySource(10))
    assert (batch.image.shape, batch.image.dtype) == ((4, 8, 8, 3), np.uint8)
    assert batch.target.dtype == np.int32
    assert batch.mask.dtype == np.float32
    assert batch.mask.tolist() == [1, 1, 1, 1]
    assert all(leaf.flags.c_contiguous for leaf in batch)


def test_each_epoch_is_another_permutation_and_batches_straddle_epochs():
    seen = labels(take(15, MemorySource(10), batch_size=4))  # six epochs of 10 in 15 batches of 4
    epochs = [seen[i : i + 10] for i in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_order_depends_on_the_seed_and_seeds_do_not_share_epochs():
    first, second = (labels(take(2, MemorySource(30), batch_size=30, seed=seed)) for seed in (0, 1))
    assert first[:30] != second[:30]
    assert first[30:] != second[:30]  # Grain alone would shuffle epoch 1 of seed 0 like epoch 0 of seed 1


@pytest.mark.parametrize("count", [2, 4])
def test_processes_interleaved_are_the_single_process_stream(count):
    source = MemorySource(11)
    whole = take(6, source, batch_size=8)
    parts = [take(6, source, batch_size=8, process_index=p, process_count=count) for p in range(count)]
    for step in range(6):
        for p in range(count):
            assert same(parts[p][step], [leaf[p::count] for leaf in whole[step]])


def test_augmentation_is_a_function_of_seed_epoch_and_index():
    source = MemorySource(6)
    for position, (image, label) in enumerate(
        (image, label)
        for batch in take(5, source, seed=7)
        for image, label in zip(batch.image, batch.target, strict=True)
    ):
        rng = np.random.default_rng([7, position // 6, int(label)])
        assert np.array_equal(image, PRETRAIN.map_image(decode(source.read(int(label))[0]), rng))


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_starting_at_a_step_gives_the_batches_of_the_run_that_was_never_stopped(threads):
    source = MemorySource(7, bad=[3])
    whole = take(9, source)
    assert all(same(a, b) for a, b in zip(take(4, source, start_step=5, threads=threads), whole[5:], strict=True))


def test_every_process_starts_at_the_global_step():
    source = MemorySource(7)
    options = {"batch_size": 6, "process_index": 1, "process_count": 3}
    whole = take(6, source, **options)
    assert all(same(a, b) for a, b in zip(take(2, source, start_step=4, **options), whole[4:], strict=True))


def test_a_closed_loader_has_no_more_batches_and_may_be_closed_again():
    loader = train_batches(MemorySource(3), PRETRAIN, batch_size=2, seed=0)
    next(loader)
    loader.close()
    loader.close()
    assert list(loader) == []


SIZES = tuple(make_transform("pretrain", size) for size in ((8, 8), (6, 10), (4, 4)))


def test_a_batch_of_several_sizes_is_that_of_its_one_size_and_all_processes_agree():
    """Wherever a run starts, and however many processes share it."""
    source = MemorySource(7, bad=[3])
    plain = [take(7, source, transform) for transform in SIZES]
    whole = take(7, source, sizes=SIZES)
    turns = [next(i for i, size in enumerate(SIZES) if size.resolution == b.image.shape[1:3]) for b in whole]
    assert sorted(turns[:3]) == sorted(turns[3:6]) == [0, 1, 2]
    assert all(same(batch, plain[turn][step]) for step, (turn, batch) in enumerate(zip(turns, whole, strict=True)))
    resumed = take(3, source, sizes=SIZES, start_step=4, threads=0)  # in the middle of a round
    assert all(same(a, b) for a, b in zip(resumed, whole[4:], strict=True))
    for p in range(2):
        share = take(7, source, sizes=SIZES, process_index=p, process_count=2)
        assert all(same(a, [leaf[p::2] for leaf in b]) for a, b in zip(share, whole, strict=True))


@pytest.mark.slow
def test_workers_give_the_same_batches_and_their_corrupt_names():
    source = MemorySource(7, bad=[3])
    whole = take(8, source, Guarded(**vars(PRETRAIN)))
    loader = train_batches(source, Guarded(**vars(PRETRAIN)), batch_size=4, seed=0, start_step=3, workers=2, prefetch=1)
    batches = list(itertools.islice(loader, 5))
    loader.close()
    assert loader.corrupt == {"image-3.png"}
    assert all(same(a, b) for a, b in zip(batches, whole[3:], strict=True))
    assert all(leaf.flags.owndata for leaf in batches[0])  # not Grain's shared memory
    sized = [take(5, source, sizes=SIZES, start_step=1, workers=workers) for workers in (0, 2)]
    assert len({batch.image.shape for batch in sized[0]}) == 3
    assert all(same(a, b) for a, b in zip(*sized, strict=True))


def test_a_batch_may_be_larger_than_the_data_set():
    (batch,) = take(1, MemorySource(5), batch_size=12)
    assert sorted(batch.target.tolist()[:10]) == sorted([*range(5)] * 2)
    assert batch.mask.sum() == 12
    assert take(1, MemorySource(1), batch_size=3)[0].target.tolist() == [0, 0, 0]


@pytest.mark.parametrize("upright", [True, False])
def test_photographs_are_turned_as_exif_says_or_left_as_stored(upright, tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the stored left edge is the top
    half = np.zeros((16, 16, 3), np.uint8)
    half[:, :8] = 200
    (tmp_path / "train" / "a").mkdir(parents=True)
    PIL.Image.fromarray(half).save(tmp_path / "train" / "a" / "0.jpg", exif=exif, quality=95)
    source = open_source(str(tmp_path), "train")
    whole = make_transform("pretrain", (16, 16), crop_area=(1.0, 1.0), flip=False)
    training = train_batches(source, whole, batch_size=1, seed=0, upright=upright)
    evaluation = eval_batches(source, make_transform("eval", (16, 16)), batch_size=1, upright=upright)
    expected = half.swapaxes(0, 1) if upright else half
    for image in (next(training).image, next(training).image, next(evaluation).image):
        assert np.abs(image[0].astype(int) - expected).max() < 30
    training.close()


def test_a_corrupt_training_image_is_replaced_by_the_next_that_decodes():
    good, source = MemorySource(9), MemorySource(9, bad=[2, 3, 8])
    expected = [{2: 4, 3: 4, 8: 0}.get(label, label) for label in labels(take(9, good))]
    batches = take(9, source)
    assert labels(batches) == expected
    assert all(batch.mask.all() for batch in batches)


def test_a_replacement_is_augmented_with_the_randomness_of_the_place():
    source = MemorySource(5, bad=[2])
    (batch,), (original,) = (take(1, s, batch_size=5) for s in (source, MemorySource(5)))
    row = original.target.tolist().index(2)
    expected = PRETRAIN.map_image(decode(source.read(3)[0]), np.random.default_rng([0, 0, 2]))
    assert np.array_equal(batch.image[row], expected)


def test_corrupt_images_are_counted_by_name_and_reported_once(caplog):
    caplog.set_level(logging.WARNING)
    loader = train_batches(
        MemorySource(6, bad=[1, 4]), PRETRAIN, batch_size=6, seed=0, corrupt=["image-4.png"], max_corrupt=2
    )
    for _ in range(3):
        next(loader)
    loader.close()
    assert loader.corrupt == {"image-1.png", "image-4.png"}
    reports = [record.getMessage() for record in caplog.records if "corrupt image" in record.getMessage()]
    assert len(reports) == 1
    assert "image-1.png" in reports[0]
    assert "truncated" in reports[0]


def test_names_are_known_only_once_their_batch_is_handed_out():
    loader = train_batches(MemorySource(4, bad=[0, 1, 2]), PRETRAIN, batch_size=1, seed=0, threads=2, prefetch=8)
    assert loader.corrupt == set()  # read ahead, but a checkpoint written now must not hold them
    loader.close()


def test_too_many_corrupt_training_images_stop_the_run_with_their_names():
    loader = train_batches(MemorySource(6, bad=[0, 1, 4]), PRETRAIN, batch_size=6, seed=0, max_corrupt=2)
    with pytest.raises(UserError, match=r"3 of 6 images .* image-0.png, image-1.png, image-4.png"):
        next(loader)


def test_a_data_set_without_one_good_image_stops_the_run():
    loader = train_batches(MemorySource(3, bad=[0, 1, 2]), PRETRAIN, batch_size=2, seed=0, max_corrupt=100)
    with pytest.raises(UserError, match="3 of 3 images could not be decoded"):
        next(loader)


def test_labels_out_of_range_stop_the_run():
    loader = train_batches(MemorySource(6, num_classes=5), PRETRAIN, batch_size=6, seed=0)
    with pytest.raises(UserError, match=r"image-5.png has label 5, expected 0 to 4"):
        next(loader)


@pytest.mark.parametrize(("count", "batch_size"), [(1, 4), (2, 4), (3, 6), (3, 3)])
@pytest.mark.parametrize("n", [1, 7, 12])
def test_evaluation_sees_each_example_once_in_order_over_all_processes(n, count, batch_size):
    source = MemorySource(n)
    loaders = [
        eval_batches(source, EVAL, batch_size=batch_size, process_index=p, process_count=count) for p in range(count)
    ]
    batches = [list(loader) for loader in loaders]
    assert {len(b) for b in batches} == {-(-n // batch_size)} == {len(loader) for loader in loaders}
    rows = [row for step in zip(*batches, strict=True) for batch in step for row in zip(*batch, strict=True)]
    assert len(rows) == len(batches[0]) * batch_size
    assert [int(label) for _, label, mask in rows if mask] == list(range(n))
    assert [bool(mask) for _, _, mask in rows] == [True] * n + [False] * (len(rows) - n)
    for index, (image, label, mask) in enumerate(rows):
        expected = (
            EVAL.map_image(decode(source.read(index)[0]), np.random.default_rng(0)) if mask else np.zeros((8, 8, 3))
        )
        assert np.array_equal(image, expected)
        assert mask or label == 0


def test_corrupt_evaluation_images_are_masked_and_named():
    loader = eval_batches(MemorySource(5, bad=[1]), EVAL, batch_size=4)
    batches = list(loader)
    assert [batch.mask.tolist() for batch in batches] == [[1, 0, 1, 1], [1, 0, 0, 0]]
    assert loader.corrupt == {"image-1.png"}
    assert not batches[0].image[1].any()


def test_too_many_corrupt_evaluation_images_stop():
    with pytest.raises(UserError, match="2 of 5 images"):
        list(eval_batches(MemorySource(5, bad=[1, 3]), EVAL, batch_size=5, max_corrupt=1))


def test_a_batch_that_cannot_be_shared_names_the_nearest_that_can():
    for batches, options in ((train_batches, {"seed": 0}), (eval_batches, {})):
        with pytest.raises(UserError, match="10 cannot be shared by 4 processes; the nearest that can is 8"):
            batches(MemorySource(3), EVAL, batch_size=10, process_count=4, **options)


READ = """
import sys
import time
from vit_jax.data.image.recipes import Transform, make_transform
from vit_jax.data.open import open_source
from vit_jax.data.source import Source
from vit_jax.data.stream.loader import eval_batches, train_batches
source = open_source("digits", "train[:50]", sys.argv[1])
loader = train_batches(source, make_transform("pretrain", (8, 8)), batch_size=8, seed=0)
assert next(loader).image.shape == (8, 8, 8, 3)
loader.close()
assert sum(b.mask.sum() for b in eval_batches(source, make_transform("eval", (8, 8)), batch_size=32)) == 50
assert sys.modules.get("tensorflow") is None
"""
HIDE = """
import sys
import time
for name in ("jax", "jaxlib", "flax"):
    sys.modules[name] = None  # as if it were not installed
"""
NO_BACKEND = """
if "jax" in sys.modules:  # Grain imports it where it is installed
    from jax._src import xla_bridge
    assert not xla_bridge.backends_are_initialized()
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [HIDE + READ, READ + NO_BACKEND], ids=["without-jax", "with-jax-installed"])
def test_reading_needs_neither_jax_nor_tensorflow(script, tfds_dir):
    subprocess.run([sys.executable, "-c", script, tfds_dir], check=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "workers"), [(1, 0), (2, 0), (4, 0), (2, 1)])
def test_the_union_of_all_processes_is_the_data_set_without_overlap_or_loss(count, workers):
    source = MemorySource(24)
    parts = [
        labels(take(3, source, batch_size=8, workers=workers, process_index=p, process_count=count))
        for p in range(count)
    ]
    assert all(len(part) == 24 // count for part in parts)
    assert sorted(itertools.chain(*parts)) == list(range(24))


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 4), (4, 2)])
def test_a_run_goes_on_with_another_number_of_processes(before, after):
    source = MemorySource(11)
    options = {"batch_size": 8, "seed": 3}
    whole = take(5, source, **options)
    first = [take(2, source, process_index=p, process_count=before, **options) for p in range(before)]
    rest = [take(3, source, start_step=2, process_index=p, process_count=after, **options) for p in range(after)]
    for count, parts, steps in ((before, first, whole[:2]), (after, rest, whole[2:])):
        for step, expected in enumerate(steps):
            for p in range(count):
                assert same(parts[p][step], [leaf[p::count] for leaf in expected])


class Dying(Transform):
    """A transform that ends its worker process as the kernel does when memory runs out."""

    def __call__(self, example, rng, out=None):
        assert multiprocessing.parent_process() is not None
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_dying_worker_is_an_error_within_seconds():
    loader = train_batches(MemorySource(8), Dying(**vars(EVAL)), batch_size=4, seed=0, workers=1)
    began = time.monotonic()
    with pytest.raises(Exception, match=r"(?i)worker|process"):
        next(loader)
    assert time.monotonic() - began < 30
    loader.close()
