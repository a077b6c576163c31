"""The held-out tenth of a user's images: chosen by class, and the same for every kind of data set and machine."""

import contextlib
import io
import json
import pickle
import shutil
import tarfile

import numpy as np
import PIL.Image
import pytest

from vit_jax.data.build import TrainData
from vit_jax.data.dedup.exclusion import write_exclusion
from vit_jax.data.formats.held_out import hold_out
from vit_jax.data.formats.records import LABELS
from vit_jax.data.image.recipes import make_transform
from vit_jax.data.open import open_source
from vit_jax.data.prepare.pack import pack
from vit_jax.data.stream.loader import train_batches
from vit_jax.types import UserError

COUNTS = {"ant": 30, "bee": 1, "cow": 12, "dog": 2}


@pytest.fixture
def folder(tmp_path):
    """Class folders of 30, 1, 12 and 2 images, each of a value of its own, without train/."""
    value = 0
    for label, count in COUNTS.items():
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(count):
            PIL.Image.fromarray(np.full((6, 5, 3), value, np.uint8)).save(tmp_path / "images" / label / f"{i}.png")
            value += 1
    return tmp_path / "images"


def names(source):
    return [source.read(i)[2] for i in range(len(source))]


def labels(source):
    return [source.read(i)[1] for i in range(len(source))]


def pixels(source):
    return [source.read(i)[0] for i in range(len(source))]


def test_a_tenth_of_each_class_is_held_out_and_never_all_of_one():
    rng = np.random.default_rng(0)
    for _ in range(200):
        counts = rng.integers(0, 45, int(rng.integers(1, 9)))
        given = rng.permutation(np.repeat(np.arange(len(counts)), counts))
        held = hold_out(given)
        for label, count in enumerate(counts):
            of_class = int(held[given == label].sum())
            if count == 1:
                assert of_class == 0
            elif count:
                assert count // 10 <= of_class <= -(-count // 10)
                assert of_class < count
        several = int(counts[counts > 1].sum())
        assert held.sum() == -(-several // 10)


def test_which_are_held_out_is_every_tenth_of_its_class_in_reading_order():
    # By hand: in order of class the places are 0 2 4 6 8 10 ... (class 0) and then 1 3 5 ... (class 1); class 2 is alone.
    given = np.array([0, 1] * 13 + [2])
    assert np.flatnonzero(hold_out(given)).tolist() == [0, 15, 20]


def test_a_folder_of_classes_is_split_by_itself_and_says_so(folder):
    kept, held = (open_source(str(folder), split) for split in ("train_kept", "train_held_out"))
    whole = open_source(str(folder), "train")
    assert sorted(names(kept) + names(held)) == sorted(names(whole))
    assert [name for name in names(whole) if name in set(names(kept))] == names(kept)
    assert (kept.spec.class_counts, held.spec.class_counts) == ((27, 1, 10, 2), (3, 0, 2, 0))
    assert (kept.spec.num_examples, held.spec.num_examples, held.spec.num_classes) == (40, 5, 4)
    assert (kept.spec.split, held.spec.split) == ("train_kept", "train_held_out")
    (note,) = kept.spec.notes
    assert held.spec.notes == (note,)
    assert note == (
        f"{folder} is split by class: 5 of its 45 training images, a tenth of each class, are held out (train_held_out), and 40 "
        "train (train_kept); 1 classes of one image train only"
    )
    half = open_source(str(folder), "train_kept[:50%]+train_held_out")
    assert names(half) == names(kept)[:20] + names(held)


def shards_of(folder, place):
    """The folder's training images as one tar shard, in the layout of WebDataset."""
    order = sorted(COUNTS)
    place.mkdir()
    with tarfile.open(place / "train-0.tar", "w") as file:
        for path in sorted(folder.rglob("*.png")):
            name = str(path.relative_to(folder))
            members = {name: path.read_bytes(), f"{name[:-4]}.cls": b"%d" % order.index(name.split("/")[0])}
            for member, data in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    return place


def test_folder_list_shards_and_what_is_packed_hold_out_the_same_images(folder, tmp_path):
    inside = tmp_path / "with_train"
    inside.mkdir()
    shutil.copytree(folder, inside / "train")
    lines = [f"{p.relative_to(inside)},{p.parent.name}" for p in sorted(inside.rglob("*.png"))]
    (inside / "list.csv").write_text("\n".join(lines))
    kinds = [inside, inside / "list.csv", shards_of(folder, tmp_path / "shards")]
    for dataset in tuple(kinds):
        kinds.append(tmp_path / f"packed_{dataset.stem}")
        pack(str(dataset), str(kinds[-1]))
    for split in ("train_kept", "train_held_out", "train_kept[10:]"):
        expected = open_source(str(inside), split)
        assert 0 < len(expected) < 45
        for dataset in kinds:
            found = open_source(str(dataset), split)
            assert pixels(found) == pixels(expected), dataset
            assert labels(found) == labels(expected)
            assert found.spec.class_counts == expected.spec.class_counts
            assert pixels(pickle.loads(pickle.dumps(found))) == pixels(expected)


def test_a_folder_without_train_packs_to_the_same_batches(folder, tmp_path):
    packed = pack(str(folder), str(tmp_path / "packed"))
    assert packed.splits == {"train": 45}
    found = []
    for dataset in (folder, tmp_path / "packed"):
        source = open_source(str(dataset), "train_kept")
        loader = train_batches(source, make_transform("pretrain", (4, 4)), batch_size=8, seed=1, threads=0)
        with contextlib.closing(loader):
            found.append([next(loader) for _ in range(7)])
    for batch, other in zip(*found, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(batch, other, strict=True))


@pytest.mark.parametrize("content", [None, b"", b"\x93NUMPY", "other"])
def test_labels_of_a_packed_set_without_its_file_of_labels_are_read_from_its_records(folder, tmp_path, content):
    pack(str(folder), str(tmp_path / "packed"))
    expected = names(open_source(str(tmp_path / "packed"), "train_held_out"))
    place = tmp_path / "packed" / LABELS.format(split="train")
    assert np.load(place).tolist() == labels(open_source(str(tmp_path / "packed"), "train"))
    if content == "other":
        np.save(place, np.full(45, 4, np.int32))  # there are four classes
    elif content is None:
        place.unlink()
    else:
        place.write_bytes(content)
    assert names(open_source(str(tmp_path / "packed"), "train_held_out")) == expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "packed"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_list_of_excluded_images_of_train_applies_to_what_is_kept(folder, tmp_path, kind, workers):
    dataset = folder
    if kind == "packed":
        dataset = tmp_path / "packed"
        pack(str(folder), str(dataset))
    whole, kept = (open_source(str(dataset), split) for split in ("train", "train_kept"))
    left_out = [3, 11, 17, 30]
    write_exclusion(tmp_path / "exclude.txt", whole, left_out, ["digits@test"], "")
    settings = {"resolution": (4, 4), "batch_size": 4, "recipe": "eval", "exclude": str(tmp_path / "exclude.txt")}
    data = TrainData(dataset=str(dataset), split="train_kept", workers=workers, **settings)
    source = data.open()
    gone = {pixels(whole)[i] for i in left_out}
    expected = [image for image in pixels(kept) if image not in gone]
    assert pixels(source) == expected
    assert source.spec.num_excluded == 40 - len(expected) > 0
    loader = data.batches(source, seed=0, start_step=0, process_index=0, process_count=1, corrupt=())
    with contextlib.closing(loader):
        seen = [int(image[0, 0, 0]) for _ in range(10) for image in next(loader).image][: len(expected)]
    assert len(set(seen)) == len(expected)
    with pytest.raises(UserError, match="an exclusion list names examples of a stored split"):
        write_exclusion(tmp_path / "other.txt", kept, [1], [], "")


def refuse(dataset, split):
    with pytest.raises(UserError) as caught:
        open_source(str(dataset), split)
    return str(caught.value)


def test_what_cannot_be_held_out_is_said(folder, tmp_path, tfds_dir):
    assert "are parts of train and cannot be joined with train; name either alone" in refuse(
        folder, "train+train_held_out"
    )
    assert "the splits are train_kept (40), train_held_out (5)" in refuse(folder, "train_kept[:0]")
    for label in ("x", "y"):
        (tmp_path / "single" / label).mkdir(parents=True)
        shutil.copy(folder / "bee" / "0.png", tmp_path / "single" / label)
    assert "no class has two images in train, so none can be held out" in refuse(tmp_path / "single", "train_kept")
    with pytest.raises(UserError, match=r"the splits are .*train \(1,437\)"):
        open_source("digits", "train_kept", tfds_dir)


def test_the_notes_stay_with_what_a_run_records(folder):
    assert json.loads(json.dumps(open_source(str(folder), "train_kept").spec.to_json()))["notes"]
