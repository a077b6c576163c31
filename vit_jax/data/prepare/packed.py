"""The folder that `data.prepare.pack` writes: names of its files, and the description by which TFDS opens it."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from vit_jax.data.formats.records import LABELS, PACKED
from vit_jax.data.prepare.prepare import quietly


def is_packed(dataset: str) -> bool:
    """Whether a path is a folder that `pack` (or TFDS) wrote."""
    return (epath.Path(dataset).expanduser() / "dataset_info.json").exists()


def shard_path(folder: epath.Path, split: str, shard: int, num_shards: int) -> str:
    """The path of one shard of a split."""
    return os.fspath(_template(folder, split).sharded_filepath(shard_index=shard, num_shards=num_shards))


def _template(folder: epath.Path, split: str) -> Any:
    from tensorflow_datasets.core import naming

    return naming.ShardedFileTemplate(folder, dataset_name=PACKED, split=split, filetype_suffix="array_record")


@functools.lru_cache(maxsize=1)
def make_features(classes: tuple[str, ...]) -> Any:
    """TFDS's features of a packed set: an encoded image and its class."""
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(None, None, 3)), "label": tfds.features.ClassLabel(names=list(classes))}
    )


def write_labels(labels: Sequence[int], folder: epath.Path, split: str) -> None:
    """Writes the labels of a split, in its order, beside its shards; `data.formats.records` reads them."""
    with (folder / LABELS.format(split=split)).open("wb") as file:
        np.save(file, np.array(labels, np.int32))


def describe(lengths: Mapping[str, list[tuple[int, int]]], classes: tuple[str, ...], folder: epath.Path) -> None:
    """Writes dataset_info.json and features.json, by which TFDS opens the folder."""
    import tensorflow_datasets as tfds

    class Packing(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        """A user's own images."""

        VERSION = tfds.core.Version("1.0.0")
        name = PACKED
        pkg_dir_path = None

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self,
                features=make_features(classes),
                supervised_keys=("image", "label"),
                disable_shuffling=True,  # the source's own order
            )

        def _split_generators(self, dl_manager: Any) -> Any:
            raise NotImplementedError  # `write_shard` has written it all

        _generate_examples = _split_generators

    with quietly():
        info = Packing(data_dir=os.fspath(folder), file_format="array_record").info
        info.set_splits(
            tfds.core.splits.SplitDict(
                [
                    tfds.core.SplitInfo(
                        name=split,
                        shard_lengths=[count for count, _ in shards],
                        num_bytes=sum(size for _, size in shards),
                        filename_template=_template(folder, split),
                    )
                    for split, shards in lengths.items()
                ]
            )
        )
        info.write_to_directory(folder)
