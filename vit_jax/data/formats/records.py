"""Data sets that TFDS has prepared as ArrayRecord, read without TensorFlow and without the builder's code."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from vit_jax.data.formats.catalogue import (
    COMMAND,
    base_name,
    find_data_dir,
    missing_message,
    tfrecord_message,
    unknown_name_message,
)
from vit_jax.data.formats.descriptions import (
    ADVICE,
    FEATURES,
    VERSION,
    check_prepared,
    check_shards,
    open_directory,
    refusing,
    short_side,
)
from vit_jax.data.formats.imagenet import competing_classes
from vit_jax.data.formats.reading_order import reading_order
from vit_jax.data.source import Origin, Source
from vit_jax.data.splits import parse_split, split_names
from vit_jax.files import open_regular
from vit_jax.targets import ClassId, ClassSet
from vit_jax.types import DatasetSpec, Label, UserError, printable

LABELS = "vit_jax_labels.{split}.npy"  # of a packed split, so that none of its records is read for them
CHUNK = 256  # records read at a time
MAX_CLASSES = 10**6  # each is a row of the head; more are a mistake
PACKED = "packed"  # the TFDS name of data sets that `data.prepare.pack` wrote


class TfdsSource(Source):
    """One split of a prepared data set. Only paths are pickled, so workers open it again.

    Args:
      spec: what was asked for and what it holds.
      folder: of one version of one config, `.../cifar10/3.0.2`.
      keys: names of the features that hold the image and the label.
      stored: the split in terms of the prepared ones, where `spec.split` has a name of its own.
      checked: every image is known to decode. Records carry checksums, so what was checked is what is read.
    """

    def __init__(
        self, spec: DatasetSpec, folder: str, keys: tuple[str, str], stored: str = "", *, checked: bool = False
    ):
        self.spec = spec
        self.folder = folder
        self.stored = stored or spec.split
        self.checked = checked
        self._keys = keys
        builder = open_directory(self.folder)
        check_shards(builder, dict.fromkeys(split_names(self.stored)))
        self._records = self._open(builder)

    def _open(self, builder: Any) -> Any:
        import tensorflow_datasets as tfds

        # Encoded bytes: TFDS's own decoder keeps alpha and 16 bits, and neither checks for damage nor for size.
        decoders = {self._keys[0]: tfds.decode.SkipDecoding()}
        with refusing(self.folder):
            return builder.as_data_source(self.stored, decoders=decoders)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_records"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._records = self._open(open_directory(self.folder))

    def origin(self) -> Origin:
        """The split in terms of the prepared ones, and the folder of the version."""
        return Origin(self.stored, self.folder)

    def reading_order(self) -> np.ndarray:
        """Places of the split's examples in the order in which TFDS's own pipeline would read them, int64 (n,)."""
        splits = dict(self._records.dataset_info.splits.items())
        counts = {name: split.num_examples for name, split in splits.items()}
        slices = parse_split(self.spec.name, self.stored, counts)
        return reading_order(slices, {name: split.shard_lengths for name, split in splits.items()})

    def read(self, index: int) -> tuple[bytes, Label, str]:
        """Example `index` of the split: (encoded image, label or labels, name)."""
        return self.read_many([index])[0]

    def read_many(self, indices: Sequence[int]) -> list[tuple[bytes, Label, str]]:
        """As `read`, five times faster than one by one. A record that is damaged on disk, or holds no image with its label,
        is b"", which does not decode: the loader counts it with the corrupt images, by name.

        Records are parsed here: TFDS's own way through all features of an example takes 70 us, a tenth of decoding it.
        """
        from google.protobuf.message import DecodeError
        from tensorflow_datasets.proto import tf_example_pb2

        try:
            records = self._records.data_source.__getitems__([int(i) for i in indices])
        except RuntimeError:  # of one of them
            records = [self._read_record(int(i)) for i in indices]
        examples: list[tuple[bytes, Label, str]] = []
        for record, index in zip(records, indices, strict=True):
            name = f"{self.spec.name}:{self.spec.split}#{index}"
            try:
                features = tf_example_pb2.Example.FromString(record).features.feature
                label = self.label(features, int(index))
                (data,) = features[self._keys[0]].bytes_list.value
                examples.append((data, label, name))
            except (DecodeError, ValueError, IndexError):  # it is empty, or another message
                examples.append((b"", self.no_label(), name))
        return examples

    def label(self, features: Any, index: int) -> Label:
        """The label of a record, from the features of its tf.train.Example; raises IndexError or ValueError if it has none."""
        labels = features[self._keys[1]].int64_list.value
        return tuple(labels) if isinstance(self.spec.target, ClassSet) else labels[0]

    def no_label(self) -> Label:
        """The label of a record that cannot be read."""
        return () if isinstance(self.spec.target, ClassSet) else 0

    def labels(self) -> np.ndarray:
        """int32 (n,), of all examples of a stored split: from the file that `data.prepare.pack` writes beside the shards, or
        from the records, all of which are read.

        Raises:
          UserError: examples have sets of labels.
        """
        if isinstance(self.spec.target, ClassSet):
            raise UserError(f"{self.spec.name}: its examples have sets of labels; expected one label an image here")
        try:
            with open_regular(epath.Path(self.folder) / LABELS.format(split=self.stored)) as file:
                stored = np.load(file, allow_pickle=False)
            as_written = (stored.dtype, stored.shape) == (np.int32, (len(self),))
            if as_written and 0 <= stored.min() <= stored.max() < self.spec.num_classes:
                return np.asarray(stored)
        except Exception as error:  # of the many that a damaged file raises
            logging.getLogger(__name__).debug("no labels beside the shards of %s: %s", self.folder, error)
        chunks = [range(i, min(i + CHUNK, len(self))) for i in range(0, len(self), CHUNK)]
        return np.array([label for chunk in chunks for _, label, _ in self.read_many(chunk)], np.int32)

    def fingerprint(self) -> bytes:
        """Hash of the names and sizes of all files."""
        files = sorted((file.name, file.stat().length) for file in epath.Path(self.folder).iterdir())
        return hashlib.sha256(repr(files).encode(errors="surrogateescape")).digest()

    def _read_record(self, index: int) -> bytes:
        """One record, or nothing if its checksum is wrong."""
        try:
            record: bytes = self._records.data_source[index]
        except RuntimeError as error:
            logging.getLogger(__name__).warning(
                "cannot read %s %s, record %d: %s", self.spec.name, self.spec.split, index, error
            )
            return b""
        return record


def open_packed(dataset: str, split: str) -> TfdsSource:
    """Opens a folder that is itself one prepared data set, `dataset_info.json` and shards, as `data.prepare.pack` writes it.

    Raises:
      UserError: it is damaged, or an unknown split.
    """
    return source_of(_check_format(open_directory(dataset)), dataset, split)


def source_of(builder: Any, dataset: str, split: str) -> TfdsSource:
    """A split of a prepared data set whose features are an image and its class, or the set of its classes; `dataset` is how
    the user named it."""
    import tensorflow_datasets as tfds

    info = builder.info
    slices = parse_split(dataset, split, {name: s.num_examples for name, s in info.splits.items()})
    with refusing(builder.data_dir):
        image, label = _find_keys(dataset, info)
        height, width, channels = info.features[image].shape
        sets = not isinstance(info.features[label], tfds.features.ClassLabel)
        classes = info.features[label].feature if sets else info.features[label]
        if not 0 < classes.num_classes <= MAX_CLASSES:
            raise UserError(
                f"{dataset}: expected 1 to {MAX_CLASSES:,} classes, found {classes.num_classes:,}; {ADVICE}"
            )
        names = tuple(map(printable, classes.names))
    spec = DatasetSpec(
        name=dataset,
        split=split,
        num_examples=sum(s.stop - s.start for s in slices),
        target=(ClassSet if sets else ClassId)(classes.num_classes),
        class_names=names,
        image_shape=(height, width, channels),
        competing=competing_classes(info.name, names),
        short_side=short_side(builder.data_dir) if info.name == PACKED else 0,
    )
    return TfdsSource(spec, str(builder.data_dir), (image, label), checked=info.name == PACKED)


def open_builder(dataset: str, data_dir: str) -> Any:
    """The TFDS builder of a prepared data set.

    Raises:
      UserError: not prepared, prepared as TFRecord, or an unknown name.
    """
    root = find_data_dir(data_dir)
    builder = find_builder(dataset, root)
    if builder is None:
        raise UserError(missing_message(dataset, root, data_dir))
    return _check_format(builder)


def _check_format(builder: Any) -> Any:
    with refusing(builder.data_dir):
        formats = {f.value for f in builder.info.available_file_formats()}
    if "array_record" not in formats:
        raise UserError(tfrecord_message(builder.info.full_name, str(builder.data_dir)))
    return builder


def find_builder(dataset: str, root: str) -> Any:
    """The builder restored from what is on disk, or None. It needs no builder code, so private data sets work too.

    Raises:
      UserError: a name that is none, or a data set that is damaged.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

    check_prepared(root, base_name(dataset))
    try:
        return read_only_builder.builder_from_files(_with_version(dataset, root), data_dir=root)
    except tfds.core.DatasetNotFoundError:
        return None
    except Exception as error:  # TFDS checks nothing itself; see formats.descriptions
        if "Parsing builder name" in str(error):
            raise UserError(unknown_name_message(dataset)) from error
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"cannot read {dataset!r} in {root}: {reason} Prepare it again: `{COMMAND} {dataset}`"
        ) from error


def _with_version(dataset: str, root: str) -> str:
    """The name with its newest version, where it names neither config nor version and its folder holds versions alone. Asked
    for less, TFDS imports its 600 modules of data sets (0.2 to 0.4 s) to learn whether one of its own has a default config.
    """
    folder = epath.Path(root) / dataset.replace("\0", "")
    if "/" in dataset or ":" in dataset or not folder.is_dir():
        return dataset
    names = [path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("incomplete.")]
    versions = [name for name in names if VERSION.fullmatch(name) and (folder / name / FEATURES).exists()]
    if not versions or len(versions) < len(names):
        return dataset
    return f"{dataset}:{max(versions, key=lambda name: tuple(map(int, name.split('.'))))}"


def _find_keys(dataset: str, info: Any) -> tuple[str, str]:
    """The features that are the image and its label, or its labels."""
    import tensorflow_datasets as tfds

    features = dict(info.features.items())
    pairs = [("image", "label")]
    if info.supervised_keys and len(info.supervised_keys) == 2:
        pairs.append(info.supervised_keys)
    for image, label in pairs:
        is_image = isinstance(features.get(image), tfds.features.Image)
        inner = getattr(features.get(label), "feature", features.get(label))  # of a sequence
        if is_image and isinstance(inner, tfds.features.ClassLabel):
            return image, label
    kinds = {key: type(feature).__name__ for key, feature in info.features.items()}
    raise UserError(
        f"{dataset}: expected features `image` (Image) and `label` (ClassLabel), found {kinds}; "
        "choose a classification data set, or export it as a folder of images"
    )
