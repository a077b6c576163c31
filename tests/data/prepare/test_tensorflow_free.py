"""TFDS's own builders download, extract and write without TensorFlow: real builders on small archives in their real layout.

Only the downloader is replaced: it finds the files in the folder for files fetched by hand, with their own checksums.
"""

import ast
import gzip
import inspect
import subprocess
import sys
from pathlib import Path

import archives
import numpy as np
import pytest

from vit_jax.data.formats.catalogue import is_known
from vit_jax.data.image.decode import decode
from vit_jax.data.prepare import prepare, tensorflow_free
from vit_jax.data.prepare.check import KNOWN
from vit_jax.types import UserError


def prepare_from(monkeypatch, name, folder, data_dir):
    """`prepare.prepare` with the builder's own checksums replaced by those of the files in `folder`."""
    from tensorflow_datasets.core.download import checksums

    builder = prepare._make_builder(name, str(data_dir))
    infos = {}
    for url, info in (builder.url_infos or {}).items():
        if info.filename and (folder / info.filename).exists():
            infos[url] = checksums.compute_url_info(folder / info.filename)
    (builder.url_infos or {}).update(infos)
    monkeypatch.setattr(prepare, "_make_builder", lambda *_: builder)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    return prepare.prepare(name, str(folder), str(data_dir)), builder


def examples_of(builder, split):
    import tensorflow_datasets as tfds

    decoders = {k: tfds.decode.SkipDecoding() for k, f in builder.info.features.items() if type(f).__name__ == "Image"}
    return list(builder.as_data_source(split, decoders=decoders))


@pytest.mark.parametrize("name", archives.BUILDERS)
def test_a_builder_prepares_its_real_archives(name, tmp_path, monkeypatch, capfd):
    write, key, label = archives.BUILDERS[name]
    folder = tmp_path / "fetched"
    folder.mkdir()
    expected = write(folder)
    result, builder = prepare_from(monkeypatch, name, folder, tmp_path / "data")
    assert "tensorflow" not in sys.modules
    assert result.splits == {split: len(examples) for split, examples in expected.items()}
    for split, examples in expected.items():
        found = examples_of(builder, split)
        assert len(found) == len(examples)
        for example in found:
            name_of = example[key] if key else f"{example['label']}/{example['image/file_name'].decode()}"
            image, value = examples[name_of.decode() if isinstance(name_of, bytes) else name_of]
            if isinstance(image, bytes):  # files are stored as they came
                assert example["image"] == image
            else:
                is_jpeg = example["image"][:2] == b"\xff\xd8"
                difference = np.abs(decode(example["image"]).astype(int) - image.astype(int))  # gray broadcasts
                assert difference.max() <= (12 if is_jpeg else 0)
                assert difference.mean() <= 2
            if label:
                assert example[label] == value
            if name == "clevr":
                assert len(example["objects"]["size"]) == value
            if name == "kitti":
                number = int(name_of.decode()[:6])
                assert np.allclose(example["objects"]["location"], [[1.0, 1.7, 5.5 + number]])


def test_nothing_of_it_is_left_behind(tmp_path, monkeypatch):
    from tensorflow_datasets.core.utils import lazy_imports_utils

    seen = []
    with tensorflow_free.installed():
        seen.append(lazy_imports_utils.tensorflow.io.gfile.exists(str(tmp_path)))
        assert "tensorflow" not in sys.modules
        with tensorflow_free.installed():
            pass
        assert lazy_imports_utils.tensorflow.compat.as_text(b"a") == "a"  # the inner one took nothing away
    assert seen == [True]
    with pytest.raises(ImportError):
        lazy_imports_utils.tensorflow.io  # noqa: B018
    with pytest.raises(RuntimeError, match="inside"), tensorflow_free.installed():
        raise RuntimeError("inside")
    assert "_module" not in lazy_imports_utils.tensorflow.__dict__


def test_real_tensorflow_is_left_in_place(monkeypatch):
    from tensorflow_datasets.core.utils import lazy_imports_utils

    monkeypatch.setattr(tensorflow_free, "has_tensorflow", lambda: True)
    with tensorflow_free.installed():
        assert "_module" not in lazy_imports_utils.tensorflow.__dict__
    assert tensorflow_free.lacks("dmlab") == ("", "")


@pytest.mark.parametrize("name", ["sun397/tfds", "dmlab"])
def test_what_needs_tensorflow_is_refused_before_anything_is_downloaded(name, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "_write", lambda *_, **__: pytest.fail("was started"))
    with pytest.raises(UserError, match=r"pip install tensorflow"):
        prepare.prepare(name, "", str(tmp_path))
    assert not (tmp_path / "downloads").exists()


def test_a_missing_package_is_named_before_anything_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"dsprites with TFDS needs h5py: its archives are HDF5 files .*pip install h5py"
    ):
        prepare.prepare("dsprites", "", str(tmp_path))
    assert not (tmp_path / "downloads").exists()


def test_a_name_that_is_not_here_is_tensorflow_missing(tmp_path, monkeypatch):
    """A builder outside the list that runs a graph fails with the same advice."""
    from tensorflow_datasets.core.utils import lazy_imports_utils

    builder = prepare._make_builder("cifar100", str(tmp_path))
    monkeypatch.setattr(builder, "_split_generators", lambda _: lazy_imports_utils.tensorflow.data.TFRecordDataset("x"))
    monkeypatch.setattr(prepare, "_make_builder", lambda *_: builder)
    monkeypatch.setattr(prepare, "_check_network", lambda *_: None)
    with pytest.raises(UserError, match=r"needs tensorflow: .*tf\.data .*pip install tensorflow"):
        prepare.prepare("cifar100", "", str(tmp_path))


def tensorflow_names(module):
    """Dotted names after `tf.` in a module's source."""
    names = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        parts, inner = [], node
        while isinstance(inner, ast.Attribute):
            parts, inner = [inner.attr, *parts], inner.value
        if parts and isinstance(inner, ast.Name) and inner.id == "tf":
            names.add(".".join(parts))
    return {n for n in names if not any(other.startswith(f"{n}.") for other in names)}


def test_the_table_is_what_the_builders_sources_use():
    """Each builder of the list asks for names that are here, or stands in the table: a new TFDS may change either."""
    import tensorflow_datasets as tfds

    for name in KNOWN:
        base = name.split("/")[0]
        if base in ("digits", "objectnet") or not is_known(name):
            continue
        lacking = set()
        for used in tensorflow_names(sys.modules[tfds.builder_cls(base).__module__]):
            found = tensorflow_free._TENSORFLOW
            for part in used.split("."):
                try:
                    found = getattr(found, part)
                except ImportError:
                    lacking.add(used)
                    break
        assert bool(lacking) == (base in tensorflow_free.NEEDS_TENSORFLOW), (name, lacking)


def test_idx_files_and_tfdss_own_download_give_the_same_data(tmp_path, monkeypatch):
    folder = tmp_path / "fetched"
    folder.mkdir()
    images = {
        "train": np.arange(20 * 784, dtype=np.uint32).astype(np.uint8),
        "t10k": np.arange(6 * 784).astype(np.uint8),
    }
    for prefix, data in images.items():
        count = len(data) // 784
        head = b"".join(int(n).to_bytes(4, "big") for n in (0x803, count, 28, 28))
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + data.tobytes()))
        labels = b"".join(int(n).to_bytes(4, "big") for n in (0x801, count)) + bytes(range(count // 2)) * 2
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    prepare.prepare("fashion_mnist", str(folder), str(tmp_path / "idx"))
    # 60,000 images are written into TFDS's builder: it reads as many as there are.
    import tensorflow_datasets as tfds

    module = sys.modules[tfds.builder_cls("fashion_mnist").__module__]
    monkeypatch.setattr(module, "_TRAIN_EXAMPLES", 20)
    monkeypatch.setattr(module, "_TEST_EXAMPLES", 6)
    monkeypatch.setattr(prepare.idx, "NAMES", ())
    _, builder = prepare_from(monkeypatch, "fashion_mnist", folder, tmp_path / "stock")
    other = tfds.builder_from_directory(str(tmp_path / "idx" / "fashion_mnist" / "3.0.1"))
    for split, count in (("train", 20), ("test", 6)):
        here, there = examples_of(builder, split), examples_of(other, split)
        assert len(here) == len(there) == count
        for a, b in zip(here, there, strict=True):
            assert a["label"] == b["label"]
            assert np.array_equal(decode(a["image"]), decode(b["image"]))


def test_a_name_service_is_not_needed_where_the_files_are_at_hand(tmp_path, monkeypatch):
    import socket

    def no_names(*_):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_names)
    (tmp_path / "fetched").mkdir()
    archives.dtd(tmp_path / "fetched")
    result, _ = prepare_from(monkeypatch, "dtd", tmp_path / "fetched", tmp_path / "data")
    assert result.splits == {"train": 2, "validation": 2, "test": 2}


def test_preparing_imports_no_tensorflow_even_in_a_fresh_process(tmp_path):
    code = (
        "import sys; from vit_jax.data.prepare import prepare, tensorflow_free\n"
        "with tensorflow_free.installed(): pass\n"
        "print('tensorflow' in sys.modules, tensorflow_free.lacks('cifar10'))"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["False", "('',", "'')"], done.stderr
