"""A user's images as a folder, as a list, and packed from either are one data set."""

import contextlib
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from vit_jax.data.image.recipes import make_transform
from vit_jax.data.open import open_source
from vit_jax.data.prepare.pack import pack
from vit_jax.data.prepare.pack_beam import make_run
from vit_jax.data.stream.loader import eval_batches, train_batches
from vit_jax.types import UserError


@pytest.fixture
def images(tmp_path):
    """Three classes of JPEGs and PNGs of many sizes; 30 to train on, 9 to test."""
    root, rng = tmp_path / "images", np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 3)):
        for label in ("ant", "bee", "cat"):
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (20 + i, 30 - i, 3), np.uint8)
                PIL.Image.fromarray(pixels).save(root / split / label / f"{i}.{'jpg' if i % 2 else 'png'}")
    return root


def write_list(root, name="list.csv", separator=",", header=True):
    paths = sorted(p.relative_to(root) for p in root.rglob("*.*") if p.suffix in (".jpg", ".png"))
    lines = [separator.join([str(p), p.parts[1], p.parts[0]]) for p in paths]
    head = [separator.join(["path", "label", "split"])] if header else []
    (root / name).write_text("\n".join(head + lines) + "\n")
    return root / name


def first_batches(dataset):
    source = open_source(str(dataset), "train[:80%]")
    loader = train_batches(
        source, make_transform("pretrain", (16, 16)), batch_size=8, seed=3, start_step=0, workers=0, threads=0
    )
    with contextlib.closing(loader):
        return [next(loader) for _ in range(5)]  # into the second epoch


def test_folder_list_and_packed_give_the_same_batches(images, tmp_path):
    listed = write_list(images)
    pack(str(images), str(tmp_path / "from_folder"))
    pack(str(listed), str(tmp_path / "from_list"))
    expected = first_batches(images)
    assert len({batch.image.tobytes() for batch in expected}) == 5
    for other in (
        listed,
        write_list(images, "list.tsv", "\t", header=False),
        tmp_path / "from_folder",
        tmp_path / "from_list",
    ):
        for found, batch in zip(first_batches(other), expected, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(found, batch, strict=True)), other
        spec = open_source(str(other), "test").spec
        assert (spec.num_examples, spec.class_names) == (9, ("ant", "bee", "cat"))


def test_a_damaged_record_is_counted_and_named_with_the_corrupt_images(images, tmp_path, caplog):
    pack(str(images), str(tmp_path / "packed"))
    source = open_source(str(tmp_path / "packed"), "train")
    data = source.read(11)[0]
    (shard,) = (tmp_path / "packed").glob("*-train.array_record-*")
    content = bytearray(shard.read_bytes())
    content[content.index(data) + len(data) // 2] ^= 1
    shard.write_bytes(content)
    transform = make_transform("eval", (16, 16))
    batches = eval_batches(open_source(str(tmp_path / "packed"), "train"), transform, batch_size=8, max_corrupt=1)
    with contextlib.closing(batches):
        masks = np.concatenate([batch.mask for batch in batches])
    assert np.flatnonzero(masks[: len(source)] == 0).tolist() == [11]
    assert batches.corrupt == {f"{tmp_path / 'packed'}:train#11"}
    assert "record 11: Corrupted Riegeli/records file" in caplog.text


def test_a_list_without_splits_is_all_train_and_may_have_spaces_and_absolute_paths(images):
    paths = sorted((images / "test").rglob("*.*"))
    (images / "plain.txt").write_text("".join(f"{path} {i % 11}\n" for i, path in enumerate(paths)))
    source = open_source(str(images / "plain.txt"), "train")
    assert len(source) == 9
    assert source.spec.class_names == tuple(map(str, range(9)))  # as numbers, were there a "10"
    data, label, name = source.read(0)
    assert data == paths[label].read_bytes()
    assert name == str(paths[label])


def test_numbers_are_sorted_as_numbers(images):
    lines = [f"train/ant/{i}.{'jpg' if i % 2 else 'png'},{label}" for i, label in enumerate((10, 9, 2, 1))]
    (images / "few.csv").write_text("\n".join(lines))
    assert open_source(str(images / "few.csv"), "train").spec.class_names == ("1", "2", "9", "10")


def test_every_wrong_line_is_named(images):
    (images / "bad.csv").write_text("a.jpg,x\nb.jpg\n\nc.jpg,,train\na.jpg,y\nd,e,f,g\n")
    with pytest.raises(UserError) as caught:
        open_source(str(images / "bad.csv"), "train")
    for line in (
        "line 2: 'b.jpg'",
        "line 4: 'c.jpg,,train'",
        "line 5: a.jpg stands in line 1 already",
        "line 6: 'd,e,f,g'",
    ):
        assert line in str(caught.value)
    for name, content in (("empty.csv", b""), ("binary.csv", b"\xff\xfe\x00")):
        (images / name).write_bytes(content)
        with pytest.raises(UserError, match=r"image list .* expected lines of `path,label`"):
            open_source(str(images / name), "train")
    with pytest.raises(UserError, match="does not exist"):
        open_source(str(images / "none.csv"), "train")


def test_corrupt_images_are_left_out_counted_and_listed(images, tmp_path):
    broken = images / "train" / "bee" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:60])
    (images / "train" / "ant" / "0.png").write_bytes(b"<html>")
    packed = pack(str(images), str(tmp_path / "packed"))
    assert packed.splits == {"test": 9, "train": 28}
    assert [line.partition(":")[0] for line in packed.corrupt] == ["train/ant/0.png", "train/bee/1.jpg"]
    assert (tmp_path / "packed" / "corrupt.txt").read_text().splitlines() == packed.corrupt
    assert len(open_source(str(tmp_path / "packed"), "train")) == 28


def test_nothing_is_overwritten_and_nothing_half_is_left(images, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="exists"):
        pack(str(images), str(tmp_path / "there"))
    for path in (images / "test").rglob("*.*"):
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match="no image of a split decodes; the last: test/"):
        pack(str(images), str(tmp_path / "never"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "there"]


def test_beam_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)  # as Python has it for what cannot be imported
    with pytest.raises(UserError, match=r"--beam needs Apache Beam.*`pip install -r requirements-beam.txt`"):
        make_run("--runner=DataflowRunner")


def test_counts_of_classes_are_those_of_the_split(tmp_path):
    for name, number in (("ant", 1), ("bee", 4), ("cow", 2)):
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(number):
            PIL.Image.new("RGB", (8, 8)).save(tmp_path / "train" / name / f"{i}.png")
    whole = open_source(str(tmp_path), "train").spec
    assert (whole.class_names, whole.class_counts) == (("ant", "bee", "cow"), (1, 4, 2))
    lines = [f"train/{n}/{i}.png,{n},{'train' if i else 'test'}" for n, k in (("bee", 4), ("cow", 2)) for i in range(k)]
    (tmp_path / "images.csv").write_text("\n".join(lines))
    assert open_source(str(tmp_path / "images.csv"), "train").spec.class_counts == (3, 1)
    assert open_source(str(tmp_path / "images.csv"), "test").spec.class_counts == (1, 1)
    first, rest = (open_source(str(tmp_path), split).spec.class_counts for split in ("train[:3]", "train[3:]"))
    assert [a + b for a, b in zip(first, rest, strict=True)] == [1, 4, 2]


LIMITED = """
import resource, sys
from vit_jax.cli.prepare import main
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.RLIM_INFINITY))
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "size"), [(["IMAGES", "--to=TMP/packed"], 4000), (["digits", "--data-dir=TMP/tfds"], 20_000)]
)
def test_a_full_disk_is_one_message_and_leaves_nothing_half(images, tmp_path, words, size):
    """The kernel's limit on the size of a file stands for the full disk."""
    words = [word.replace("IMAGES", str(images)).replace("TMP", str(tmp_path)) for word in words]
    program = LIMITED.format(size=size)
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "no room to pack into" in message or "no room to prepare digits in" in message
    assert "File too large" in message
    assert not (tmp_path / "packed").exists()
    assert not list(tmp_path.glob(".packed*"))
    assert not list((tmp_path / "tfds").rglob("*.array_record*"))
    done = subprocess.run(
        [sys.executable, "-m", "vit_jax", "prepare", *words], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
