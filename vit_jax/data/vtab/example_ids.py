"""Ids of the examples of VTAB's data sets, wherever an example lies in the files.

An id must depend neither on the order of the files nor on who encoded the image, so it is not a checksum but the data set's
own name of the example: the file name or running number that TFDS keeps with it or, of the two sets that keep none, the
factors, each combination of which occurs once. (`tfds_id` is a place in a file, and `as_data_source` does not give it.)
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from typing import Any

from etils import epath

from vit_jax.data.formats.catalogue import COMMAND
from vit_jax.files import read_regular
from vit_jax.types import UserError

CHUNK = 4096  # examples read at a time

# The features that name an example within its data set, joined by "/"; class labels by their names.
KEYS = {
    "caltech101": ("label", "image/file_name"),
    "cifar100": ("id",),
    "clevr": ("file_name",),
    "diabetic_retinopathy_detection/btgraham-300": ("name",),
    "dmlab": ("filename",),
    "dsprites": ("label_shape", "label_scale", "label_orientation", "label_x_position", "label_y_position"),
    "dtd": ("file_name",),
    "eurosat/rgb": ("filename",),
    "kitti": ("image/file_name",),
    "oxford_flowers102": ("file_name",),
    "oxford_iiit_pet": ("file_name",),
    "patch_camelyon": ("id",),
    "resisc45": ("filename",),
    "smallnorb": ("label_category", "instance", "label_elevation", "label_azimuth", "label_lighting"),
    "sun397/tfds": ("file_name",),
    "svhn_cropped": ("id",),
}


def ids_of(builder: Any, dataset: str, split: str) -> list[str]:
    """The ids of a stored split, in its order. Kept in `example_ids.SPLIT.txt` beside the data, if one may write there.

    Raises:
      UserError: the data set has no such features: it is another one, or another version.
    """
    info = builder.info.splits[split]
    shards = [[epath.Path(path).name, epath.Path(path).stat().length] for path in info.filepaths]
    head = json.dumps([builder.info.full_name, KEYS[dataset], info.shard_lengths, shards])
    path = epath.Path(builder.data_dir) / f"example_ids.{split}.txt"
    if path.exists():
        with contextlib.suppress(OSError, UnicodeDecodeError):  # then they are read again
            first, *lines = read_regular(path).decode().removesuffix("\n").split("\n")
            if first == head and len(lines) == info.num_examples:
                return lines
    lines = _read_ids(builder, dataset, split)
    try:
        write_whole(str(path), ("\n".join([head, *lines]) + "\n").encode())
    except UserError as error:
        logging.getLogger(__name__).warning("the ids of %s %s are read again each time: %s", dataset, split, error)
    return lines


def _read_ids(builder: Any, dataset: str, split: str) -> list[str]:
    import tensorflow_datasets as tfds

    features = builder.info.features
    keys = KEYS[dataset]
    if lacking := [key for key in keys if key not in features]:
        raise UserError(
            f"{builder.info.full_name} in {builder.data_dir} has no {', '.join(lacking)}, by which its examples are named; "
            f"prepare it again: `{COMMAND} {dataset}`"
        )
    # Only what names an example is parsed, which takes half the time: 43 s for dSprites' 737,280, once.
    wanted = tfds.features.FeaturesDict({key: features[key] for key in keys})
    source = builder.as_data_source(split)
    count = builder.info.splits[split].num_examples
    ids = []
    for start in range(0, count, CHUNK):
        for raw in source.data_source.__getitems__(list(range(start, min(start + CHUNK, count)))):
            example = wanted.deserialize_example_np(raw)
            ids.append("/".join(_text(features[key], example[key]) for key in keys))
    return ids


def _text(feature: Any, value: Any) -> str:
    if hasattr(feature, "int2str"):
        return str(feature.int2str(int(value)))
    return value.decode() if isinstance(value, bytes) else str(value)


def write_whole(path: str, content: bytes) -> None:
    """Writes a file that is never seen half written, and its folder.

    Raises:
      UserError: one may not write there, or there is no room.
    """
    target = epath.Path(os.path.expanduser(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.parent / f"{target.name}.{os.getpid()}"
        partial.write_bytes(content)
        partial.replace(target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error}") from error
